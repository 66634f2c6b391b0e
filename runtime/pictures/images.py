"""Images from files: pictures, folders of them, and npz or npy files, as float32 [N, C, H, W] in [-1, 1].

How one picture is decoded stands in formats.py; how an array file is read, in storage/arrays.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...errors import ImageError
from ..classes import named_labels
from ..pixels import ValueRange, from_pixels, in_signed_range
from ..storage.arrays import is_array_file, read_arrays, required
from .formats import Survey, image_files, read_picture


@dataclass(frozen=True)
class ImageSet:
    """images: float32 [N, C, H, W] in [-1, 1]; names: one per image; labels: integers or class names [N] where the source had them.

    note: what was converted or left out, in a line for people, or "".
    """

    images: np.ndarray
    names: list[str]
    labels: np.ndarray | None = None
    note: str = ""


def read_images(
    paths: Sequence[Path],
    sample_shape: tuple[int, int, int],
    value_range: ValueRange = None,
    with_labels: bool = True,
) -> ImageSet:
    """Read image files, folders of them, or one npz or npy file with `images`, uint8 or floats (see `in_signed_range`).

    with_labels: whether the labels of an array file are read, and checked. Raises ImageError, LabelError.
    """
    arrays = [path for path in paths if is_array_file(path)]
    if arrays and len(paths) > 1:
        raise ImageError(f"{arrays[0]}: an npz or npy file is read alone; give it without other inputs")
    if arrays:
        return _read_array_images(arrays[0], sample_shape, value_range, with_labels)
    survey = Survey()
    files = [file for path in paths for file in image_files(path, survey)]
    images = np.stack([read_picture(file, sample_shape, str(file), survey=survey) for file in files])
    return ImageSet(images, [file.stem for file in files], note=survey.line())


def images_from_array(
    array: np.ndarray,
    where: str,
    value_range: ValueRange = None,
    sample_shape: tuple[int, int, int] | None = None,
) -> np.ndarray:
    """float32 [N, C, H, W] in [-1, 1] from what npz files hold. Raises ImageError.

    array: uint8 [N, H, W], [N, H, W, C] or [N, C, H, W] with C = 1 or 3, or float [N, C, H, W] in value_range. sample_shape: the
    (C, H, W) that is expected, None for any.
    """
    images = array[:, None] if array.ndim == 3 else array
    if images.ndim != 4 or not images.size:
        raise ImageError(f"{where}: images has shape {list(array.shape)}; expected N pictures")
    if images.dtype == np.uint8 and images.shape[1] not in (1, 3):
        images = images.transpose(0, 3, 1, 2)
    if sample_shape is not None and images.shape[1:] != sample_shape:
        expected = ", ".join(map(str, sample_shape))
        raise ImageError(f"{where}: images has shape {list(array.shape)}, expected [N, {expected}]")
    if images.dtype == np.uint8:
        return from_pixels(images, f"{where}: images", value_range)
    if images.dtype.kind != "f":
        raise ImageError(
            f"{where}: images must be uint8, or floats in [-1, 1], not {images.dtype}{_conversion(images)}"
        )
    return in_signed_range(images, f"{where}: images", value_range)


def _conversion(images: np.ndarray) -> str:
    """What makes pixels of booleans or integers, for the end of a message; "" where that is unclear."""
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
            f"{path}: labels has shape {list(labels.shape)}, but there must be one label for each of {len(images)} images"
        )
    names = [f"{path.stem}[{i}]" for i in range(len(images))]
    return ImageSet(images, names, labels)
