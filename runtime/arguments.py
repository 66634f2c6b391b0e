"""Checks of the arguments of BCM's methods, and their conversion to arrays."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeGuard

import numpy as np

from ..errors import ImageError, InputError, LabelError
from .classes import NO_CLASSES, asks_to_guess, label_of, labels_of, refuse_guess, repeated_labels
from .machine.resources import check_memory
from .pictures.inputs import Holes, Images, Latents, Tensor, as_holes, as_latents, from_tensor
from .schedule import SIGMA_MAX
from .wording import argument, counted, listed

Seeds = int | Sequence[int] | np.ndarray | Tensor
Labels = int | str | Sequence[int | str] | np.ndarray | Tensor | None

# The largest accepted standard deviation of latents. States at the highest noise level have 80.
MOST_DEVIATION = 10.0
# Bytes of images that are made without a look at the free memory, which is read from about 20 system files.
ALWAYS_FITS = 4 << 20
MOST_MEAN = 10.0  # the largest accepted mean of latents, positive or negative


def check_seeds(seed: Seeds, n: int) -> list[int]:
    """Return n seeds: s, s+1, … from an integer s, else the seeds of the sequence.

    Raises InputError if there are not n seeds, or one of them is not an integer in [0, 2**64).
    """
    seed = from_tensor(seed, "seeds", InputError)
    if _is_integer(seed):
        seed = [int(seed) + i for i in range(n)]
    if not _is_list(seed) or not all(map(_is_integer, seed)):
        raise InputError("seeds must be integers")
    seeds = [int(s) for s in seed]
    if len(seeds) != n:
        raise InputError(f"{len(seeds)} seeds were given for {n} images")
    for s in seeds:
        if not 0 <= s < 2**64:
            raise InputError(f"seeds must lie in [0, 2**64), got {s}")
    return seeds


def check_labels(
    labels: Labels, n: int, classes: int | None, names: Sequence[str] | None = None
) -> np.ndarray | None:
    """Return labels as int64 [n], or None for a model without classes.

    classes: the number of classes of the model, or None.
    names: the names of the classes, which labels may contain in place of numbers.
    labels: a text is read as the option --label reads it (`labels_of`), and repeated in order.

    Raises LabelError.
    """
    if classes is None:
        if labels is not None:
            raise LabelError(NO_CLASSES)
        return None
    if labels is None:
        or_name = f" or one of the names {listed(names)}" if names else ""
        with_option = argument("", " with --label, for example --label 3 or --label all")
        raise LabelError(
            f"this model is class-conditional: give labels from 0 to {classes - 1}{or_name}{with_option}"
        )
    refuse_guess(labels)
    if isinstance(labels, str):
        return np.array(repeated_labels(labels, n, classes, names), np.int64)
    array = _numbers(labels, classes, names)
    if array.dtype.kind not in "iu":
        raise LabelError(f"labels must be integers or class names, not {array.dtype}")
    if array.ndim > 1 or (array.ndim == 1 and len(array) != n):
        raise LabelError(f"{array.size} labels were given for {n} images")
    if array.size and not (array.min() >= 0 and array.max() < classes):
        wrong = array.min() if array.min() < 0 else array.max()
        raise LabelError(f"label {wrong} is out of range; this model has classes 0 to {classes - 1}")
    return np.broadcast_to(array, n).astype(np.int64)


def check_targets(to: Labels, n: int, classes: int | None, names: Sequence[str] | None = None) -> np.ndarray:
    """Return the labels that n images are generated with in place of their own, as int64 [n].

    to: as `labels` of `check_labels`, but a text must not name more classes than there are images: the last
    ones would have no image.
    classes, names: the number of classes of the model, or None, and their names, or None.

    Raises LabelError, also for a model with fewer than two classes, and without `to`.
    """
    name = argument("to", "--to")
    if to is None or isinstance(to, str):
        targets = target_classes(to, classes, names)
        if len(targets) > n:
            images = counted(n, "image")
            raise LabelError(f"{name}: {len(targets)} classes for {images}; give each image once per class")
        return np.array([targets[index % len(targets)] for index in range(n)], np.int64)
    _check_has_targets(classes)
    try:
        labels = check_labels(to, n, classes, names)
    except LabelError as error:
        raise LabelError(f"{name}: {error}") from None
    assert labels is not None
    return labels


def target_classes(text: str | None, classes: int | None, names: Sequence[str] | None) -> list[int]:
    """Return the classes in a text that names what to generate in place of an image's own class.

    text: a list as `labels_of` reads it, or None if the caller gave none.

    Raises LabelError, also for a model with fewer than two classes, and without a text.
    """
    count = _check_has_targets(classes)
    name = argument("to", "--to")
    choice = f"one of {listed(names)}" if names else f"a number from 0 to {count - 1}"
    if text is None:
        option = argument("to=", "--to")
        raise LabelError(f"restyle needs the class to generate: give {option} with {choice}")
    if asks_to_guess(text):
        raise LabelError(f"{name}: the class to generate cannot be guessed; give {choice}")
    try:
        return labels_of(text, classes, names, where="")
    except LabelError as error:
        raise LabelError(f"{name}: {error}") from None


def _check_has_targets(classes: int | None) -> int:
    """Return the number of classes. Raises LabelError if there are fewer than two."""
    if classes is None or classes < 2:
        there = "no classes" if classes is None else "only one class"
        raise LabelError(
            f"restyle generates images under another class, and this model has {there}; "
            "it needs a model with at least two classes"
        )
    return classes


def _numbers(
    labels: int | Sequence[int | str] | np.ndarray | Tensor, classes: int, names: Sequence[str] | None
) -> np.ndarray:
    """Return the labels as an array, with numbers in place of names."""

    def number(label: int | str) -> int:
        if isinstance(label, (bool, np.bool_)):
            raise LabelError("labels must be integers or class names, not bool")
        return label_of(label, classes, names) if isinstance(label, str) else label

    labels = from_tensor(labels, "labels", LabelError)
    if isinstance(labels, np.ndarray) and labels.dtype.kind == "O":  # pandas stores texts in such arrays
        labels = labels.tolist()
    if isinstance(labels, np.ndarray) and labels.dtype.kind == "U":
        numbers = [number(word) for word in labels.ravel().tolist()]
        return np.array(numbers, np.int64).reshape(labels.shape)
    if isinstance(labels, Sequence):
        numbers = [number(label) for label in labels]
        try:
            return np.asarray(numbers) if numbers else np.empty(0, np.int64)
        except ValueError as error:  # lists of different lengths
            raise LabelError("labels must be one list of integers or class names") from error
    return np.asarray(labels)


def length(values: Seeds | Labels, classes: int | None = None, names: Sequence[str] | None = None) -> int:
    """Return the number of images that seeds or labels are for: 1 for a single number or name.

    classes, names: those of the model, for labels.
    """
    if isinstance(values, str) and not asks_to_guess(values):
        return len(labels_of(values, classes, names))
    values = from_tensor(values, "labels", LabelError)
    return len(values) if _is_list(values) else 1


def check_latents(values: Latents, shape: tuple[int, int, int]) -> np.ndarray:
    """Return latents as float32 [N, *shape]. Raises ImageError unless they have about unit variance."""
    latents = as_latents(values, shape)
    if latents.dtype.kind != "f":
        raise ImageError(f"latents must be floats, not {latents.dtype}")
    if not np.isfinite(latents).all():
        raise ImageError("latents contain NaN or infinity; all values must be finite")
    latents = latents.astype(np.float32, copy=False)
    deviation = float(latents.std(axis=(1, 2, 3), dtype=np.float64).max())
    if deviation > MOST_DEVIATION:
        raise ImageError(
            f"latents have a standard deviation of {deviation:.3g}, but unit variance is expected, "
            f"as in the results of invert; convert states at noise level {SIGMA_MAX:g} "
            f"with latents / {SIGMA_MAX:g}"
        )
    mean = float(max(latents.mean(axis=(1, 2, 3), dtype=np.float64), key=abs))
    if abs(mean) > MOST_MEAN:
        raise ImageError(
            f"latents have a mean of {mean:.3g}, but about 0 is expected, as in the results of "
            "invert; subtract their mean"
        )
    return latents


def check_integer(value: Any, name: str) -> int:
    """Return an argument that is an integer, else raise InputError. name: the name of the argument."""
    if not _is_integer(value):
        raise InputError(f"{name} must be an integer, not {type(value).__name__}")
    return int(value)


def check_real(value: Any, name: str) -> None:
    """Raise InputError unless an argument is a number. name: the name of the argument."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise InputError(f"{name} must be a number, not {type(value).__name__}")


def _is_list(value: object) -> TypeGuard[Sequence[Any] | np.ndarray]:
    if isinstance(value, np.ndarray):
        return value.ndim > 0
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes))


def _is_integer(value: object) -> TypeGuard[int]:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def check_number(n: int, sample_shape: tuple[int, int, int], noun: str = "images") -> None:
    """Raise InputError, before anything is allocated, if n images do not fit in memory.

    noun: how messages call the images.
    """
    if n < 1:
        raise InputError(f"the number of {noun} must be at least 1, not {n}")
    # A state and its noise in float32, a seed and a label.
    bytes_per_image = 2 * 4 * math.prod(sample_shape) + 100
    needed = n * bytes_per_image
    if needed > ALWAYS_FITS:
        advice = f"make fewer at a time{argument('', ', or use bcm-edge map')}"
        check_memory(needed, f"{n} {noun}", advice)


def check_holes(holes: Holes, images: np.ndarray, pictures: Images | None = None) -> np.ndarray:
    """Return holes as bool of the shape of the images, True where a pixel is unknown.

    holes: arrays [H, W] for all images, [N, H, W], [N, 1, H, W] or [N, C, H, W] with True, or a number other
    than 0, where a pixel is unknown; or another form of `as_holes`.
    images: float32 [N, C, H, W].
    pictures: the images in the form in which the user has them.

    Raises ImageError for other shapes, for images without a hole, and for images without a known pixel.
    """
    unknown = as_holes(holes, pictures, images.shape[1:]) != 0
    shape = list(unknown.shape)
    if unknown.ndim == 2:
        unknown = unknown[None, None]
    elif unknown.ndim == 3:
        unknown = unknown[:, None]
    n, channels, height, width = images.shape
    fits = (
        unknown.ndim == 4
        and len(unknown) in (1, n)
        and unknown.shape[1] in (1, channels)
        and unknown.shape[2:] == (height, width)
    )
    if not fits:
        raise ImageError(
            f"a mask of shape {shape} does not fit images of shape {list(images.shape)}; "
            "give [H, W], [N, H, W] or [N, C, H, W]"
        )
    unknown = np.broadcast_to(unknown, images.shape)
    for index, hole in enumerate(unknown):
        if not hole.any():
            raise ImageError(f"the mask of image {index} is empty, so there is nothing to fill in")
        if hole.all():
            raise ImageError(
                f"the mask of image {index} covers the whole image, so nothing is known; use generate instead"
            )
    return unknown
