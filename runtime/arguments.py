"""What the methods of BCM are given, checked and made into arrays; messages say what was wrong and what would be right."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ..errors import ImageError, InputError, LabelError
from .classes import NO_CLASSES, label_of
from .machine.resources import check_memory
from .pixels import ValueRange, from_pixels, in_signed_range
from .schedule import SIGMA_MAX
from .wording import listed

Seeds = int | Sequence[int] | np.ndarray
Labels = int | str | Sequence[int | str] | np.ndarray | None

MOST_DEVIATION = 10.0  # of latents; states at the highest noise level have 80


def check_seeds(seed: Seeds, n: int) -> list[int]:
    """One seed per image: s, s+1, … from an integer, or as listed. Raises InputError."""
    given = [int(seed) + i for i in range(n)] if isinstance(seed, (int, np.integer)) else seed
    if not np.iterable(given) or not all(isinstance(s, (int, np.integer)) for s in given):
        raise InputError("seeds must be integers")
    seeds = [int(s) for s in given]
    if len(seeds) != n:
        raise InputError(f"{len(seeds)} seeds were given for {n} images")
    if not all(0 <= s < 2**64 for s in seeds):
        raise InputError("seeds must lie in [0, 2**64)")
    return seeds


def check_labels(
    labels: Labels, n: int, classes: int | None, names: Sequence[str] | None = None
) -> np.ndarray | None:
    """int64 [N] for a model with classes, None for one without. names: of the classes, by which labels may call them. Raises LabelError."""
    if classes is None:
        if labels is not None:
            raise LabelError(NO_CLASSES)
        return None
    if labels is None:
        named = f" or one of the names {listed(names)}" if names else ""
        raise LabelError(
            f"this model is class-conditional: give labels from 0 to {classes - 1}{named} (--label on the command line)"
        )
    array = _numbers(labels, classes, names)
    if array.dtype.kind not in "iu":
        raise LabelError(f"labels must be integers or class names, not {array.dtype}")
    if array.ndim > 1 or (array.ndim == 1 and len(array) != n):
        raise LabelError(f"{array.size} labels were given for {n} images")
    if array.size and not (array.min() >= 0 and array.max() < classes):
        wrong = array.min() if array.min() < 0 else array.max()
        raise LabelError(f"label {wrong} is out of range; this model has classes 0 to {classes - 1}")
    return np.broadcast_to(array, n).astype(np.int64)


def _numbers(
    labels: int | str | Sequence[int | str] | np.ndarray, classes: int, names: Sequence[str] | None
) -> np.ndarray:
    """The labels as an array, with numbers in place of names."""
    if isinstance(labels, str):
        return np.array(label_of(labels, classes, names))
    if isinstance(labels, np.ndarray) and labels.dtype.kind == "O":  # what pandas makes of texts
        labels = labels.tolist()
    if isinstance(labels, np.ndarray) and labels.dtype.kind == "U":
        return np.array(
            [label_of(word, classes, names) for word in labels.ravel().tolist()], np.int64
        ).reshape(labels.shape)
    if isinstance(labels, Sequence):
        if not labels:
            return np.empty(0, np.int64)
        return np.asarray(
            [label_of(label, classes, names) if isinstance(label, str) else label for label in labels]
        )
    return np.asarray(labels)


def length(values: Seeds | Labels) -> int:
    """How many images seeds or labels are for: 1 for a lone number or name."""
    return len(values) if isinstance(values, (Sequence, np.ndarray)) and np.ndim(values) else 1


def check_images(
    values: np.ndarray, shape: tuple[int, int, int], what: str = "images", value_range: ValueRange = None
) -> np.ndarray:
    """float32 [N, *shape] in [-1, 1] from uint8, or from floats in value_range (see `in_signed_range`). Raises ImageError."""
    array = np.asarray(values)
    _check_shape(array, shape, what)
    if array.dtype == np.uint8:
        return from_pixels(array, what, value_range)
    _check_kind(array, what)
    return in_signed_range(array, what, value_range)


def check_latents(values: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """float32 [N, *shape] of about unit variance. Raises ImageError."""
    latents = np.asarray(values)
    _check_shape(latents, shape, "latents")
    _check_kind(latents, "latents")
    if not np.isfinite(latents).all():
        raise ImageError(f"latents must be finite floats, not {latents.dtype} with NaN or infinity")
    latents = latents.astype(np.float32)
    deviation = float(latents.std(axis=(1, 2, 3), dtype=np.float64).max())
    if deviation > MOST_DEVIATION:
        raise ImageError(
            f"latents have a standard deviation of {deviation:.3g}, but unit variance is expected, as invert writes them; "
            f"convert states at noise level {SIGMA_MAX:g} with latents / {SIGMA_MAX:g}"
        )
    return latents


def check_number(n: int, sample_shape: tuple[int, int, int], what: str = "images") -> None:
    """Raise InputError, before anything is allocated, for more images than fit in memory."""
    if n < 1:
        raise InputError(f"the number of {what} must be at least 1, not {n}")
    each = 2 * 4 * math.prod(sample_shape) + 100  # the state and its noise in float32, a seed and a label
    check_memory(n * each, f"{n} {what}", "make fewer at a time, or use bcm-edge map")


def _check_shape(array: np.ndarray, shape: tuple[int, int, int], what: str) -> None:
    if array.ndim != 4 or array.shape[1:] != shape or not len(array):
        raise ImageError(
            f"{what} have shape {list(array.shape)}, the model takes [N, {', '.join(map(str, shape))}]"
        )


def _check_kind(array: np.ndarray, what: str) -> None:
    if array.dtype.kind != "f":
        raise ImageError(f"{what} must be finite floats, not {array.dtype}")


def check_holes(holes: np.ndarray, images: np.ndarray) -> np.ndarray:
    """bool, True where unknown, of the shape of images: from one [H, W] for all, or [N, H, W], [N, 1, H, W] or [N, C, H, W].

    Numbers count as True where they are not 0. Raises ImageError for other shapes, and for holes that are nothing or everything.
    """
    array = np.asarray(holes) != 0
    n, _, height, width = images.shape
    grown = array[None, None] if array.ndim == 2 else array[:, None] if array.ndim == 3 else array
    if (
        grown.ndim != 4
        or grown.shape[2:] != (height, width)
        or len(grown) not in (1, n)
        or grown.shape[1] not in (1, images.shape[1])
    ):
        raise ImageError(
            f"a mask of shape {list(array.shape)} does not fit images of shape {list(images.shape)}; give [H, W], [N, H, W] or [N, C, H, W]"
        )
    full = np.broadcast_to(grown, images.shape)
    for index, hole in enumerate(full):
        if not hole.any():
            raise ImageError(f"the mask of image {index} is empty: nothing of it is to be filled in")
        if hole.all():
            raise ImageError(
                f"the mask of image {index} covers all of it: nothing is known, so generate it instead"
            )
    return full
