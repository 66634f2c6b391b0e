"""Read images from picture files, folders, and npz or npy files, as float32 [N, C, H, W] in [-1, 1].

formats.py decodes a single picture; storage/arrays.py reads files of arrays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...errors import ImageError, LabelError
from ..classes import named_labels
from ..pixels import ValueRange, from_pixels, in_signed_range
from ..storage.arrays import is_array_file, read_arrays, required
from ..wording import argument
from .folders import FolderImages, Survey, find_images
from .formats import read_picture


@dataclass(frozen=True)
class ImageSet:
    """A set of images with their names, and with labels if the source has labels."""

    # float32 [N, C, H, W] in [-1, 1].
    images: np.ndarray
    # One name per image.
    names: list[str]
    # [N], integers or class names; None if the source has no labels.
    labels: np.ndarray | None = None
    # What was converted or left out, as one line for people; "" if nothing was.
    note: str = ""
    # The file of arrays, or the folders, that the labels are from, for messages; "" without labels.
    labels_from: str = ""
    # How many images were converted from colour to grey.
    to_grey: int = 0


def read_image_set(
    paths: Sequence[Path],
    sample_shape: tuple[int, int, int],
    value_range: ValueRange = None,
    with_labels: bool = True,
) -> ImageSet:
    """Read image files and folders of them, or one npz or npy file with the array `images`.

    The names of a folder's sub-folders are the labels of their images (`find_images`).

    sample_shape: (C, H, W) of the model.
    value_range: the range of float images in a file of arrays, see `in_signed_range`.
    with_labels: whether to read labels.

    Raises ImageError and LabelError.
    """
    array_files = [path for path in paths if is_array_file(path)]
    if array_files and len(paths) > 1:
        raise ImageError(f"{array_files[0]}: an npz or npy file is read alone; give it without other inputs")
    if array_files:
        return _read_array_images(array_files[0], sample_shape, value_range, with_labels)
    survey = Survey()
    found = [(path, find_images(path, survey)) for path in paths]
    files = [file for _, folder in found for file in folder.files]
    images = np.stack([read_picture(file, sample_shape, str(file), survey=survey) for file in files])
    names = [name for _, folder in found for name in _names(folder)]
    if not with_labels:
        return ImageSet(images, names, note=survey.line(), to_grey=survey.to_grey)
    labels, labels_from = _folder_labels(found)
    if labels is not None:
        survey.class_names = list(dict.fromkeys(labels.tolist()))
    return ImageSet(images, names, labels, survey.line(), labels_from, survey.to_grey)


def _names(folder: FolderImages) -> list[str]:
    """Return the names of images: those of their files without suffix, after the name of their class."""
    if folder.classes is None:
        return [file.stem for file in folder.files]
    return [f"{name}/{file.stem}" for name, file in zip(folder.classes, folder.files, strict=True)]


def _folder_labels(found: Sequence[tuple[Path, FolderImages]]) -> tuple[np.ndarray | None, str]:
    """Return the class names [N] of N images from the names of their folders, and these folders as text.

    None if no folder has sub-folders that are classes. Raises LabelError if only a part of the images has a
    class.
    """
    with_classes = [path for path, folder in found if folder.classes is not None]
    if not with_classes:
        return None, ""
    if without := [path for path, folder in found if folder.classes is None]:
        raise LabelError(
            f"the images of {with_classes[0]} have labels, the names of its sub-folders, but those of "
            f"{without[0]} have none; give the labels of all images with {argument('labels=', '--label')}, "
            "or use each folder alone"
        )
    labels = [name for _, folder in found for name in folder.classes or ()]
    return np.array(labels), ", ".join(map(str, with_classes))


def images_from_array(
    array: np.ndarray,
    where: str,
    value_range: ValueRange = None,
    sample_shape: tuple[int, int, int] | None = None,
) -> np.ndarray:
    """Return an array of images as float32 [N, C, H, W] in [-1, 1].

    array: uint8 [N, H, W], [N, H, W, C] or [N, C, H, W] with C = 1 or 3, or float [N, C, H, W].
    where: the name of the array's file in error messages.
    value_range: the range of floats, see `in_signed_range`.
    sample_shape: the (C, H, W) that is required; None accepts any.

    Raises ImageError.
    """
    images = array[:, None] if array.ndim == 3 else array
    if images.ndim != 4 or not images.size:
        raise ImageError(
            f"{where}: images has shape {list(array.shape)}; "
            "expected [N, H, W], [N, H, W, C] or [N, C, H, W], with at least one image"
        )
    if images.dtype == np.uint8 and images.shape[1] not in (1, 3):
        images = images.transpose(0, 3, 1, 2)
    if sample_shape is not None and images.shape[1:] != sample_shape:
        expected = ", ".join(map(str, sample_shape))
        raise ImageError(f"{where}: images has shape {list(array.shape)}, expected [N, {expected}]")
    if images.dtype == np.uint8:
        return from_pixels(images, f"{where}: images", value_range)
    check_image_type(images, f"{where}: images")
    return in_signed_range(images, f"{where}: images", value_range)


def check_image_type(images: np.ndarray, noun: str) -> None:
    """Raise ImageError unless images are uint8 or floats. noun: the name of the images in the message."""
    if images.dtype != np.uint8 and images.dtype.kind != "f":
        advice = _conversion_advice(images)
        raise ImageError(f"{noun} must be uint8, or floats in [-1, 1], not {images.dtype}{advice}")


def _conversion_advice(images: np.ndarray) -> str:
    """Return how to convert booleans or integers to pixels, as the end of a message; "" if it is unclear."""
    if images.dtype.kind not in "biu" or images.min() < 0 or images.max() > 255:
        return ""
    if images.max() <= 1:
        return "; convert 0 and 1 to pixels with (images * 255).astype('uint8')"
    return "; convert pixels from 0 to 255 with images.astype('uint8')"


def _read_array_images(
    path: Path, sample_shape: tuple[int, int, int], value_range: ValueRange, with_labels: bool
) -> ImageSet:
    arrays = read_arrays(path, "images")
    images = images_from_array(required(arrays, "images", path), str(path), value_range, sample_shape)
    labels = named_labels(arrays, str(path)) if with_labels else None
    if labels is not None and labels.shape != (len(images),):
        raise ImageError(
            f"{path}: labels has shape {list(labels.shape)}, expected [{len(images)}], one label per image"
        )
    names = [f"{path.stem}[{index}]" for index in range(len(images))]
    return ImageSet(images, names, labels, labels_from="" if labels is None else str(path))
