"""Images from files without a model: `bcm_edge.read_images`."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import ImageError
from ..pixels import ValueRange, check_value_range
from ..storage.arrays import is_array_file, read_arrays, required
from ..storage.user_paths import path_text
from .folders import find_images
from .formats import GREY_MODES, open_picture
from .images import images_from_array, read_image_set

Paths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


def read_images(
    path: Paths, size: tuple[int, int, int] | None = None, *, value_range: ValueRange = None
) -> np.ndarray:
    """Return images of files as float32 [N, C, H, W] in [-1, 1].

    Args:
        path: A picture file, a folder of them, an npz or npy file, or a list of picture files and folders.
        size: (C, H, W) of the result. Pictures are cropped at the centre and resized to it, and converted to
            grey (C = 1) or to colour (C = 3). By default the size of the files, which must be the same for
            all, and colour unless all are grey.
        value_range: The range of the floats in an npz or npy file: (-1, 1), or (0, 1), which is converted.

    Raises:
        ImageError: A file cannot be read, or the files have different sizes.
    """
    entries = path if isinstance(path, (list, tuple)) else [path]
    paths = [Path(path_text(entry, "path", ImageError)) for entry in entries]
    if not paths:
        raise ImageError("there are no images to read; give the path of a file or a folder")
    value_range = check_value_range(value_range)
    if size is not None:
        _check_size(size)
    if size is None and len(paths) == 1 and is_array_file(paths[0]):
        array = required(read_arrays(paths[0], "images"), "images", paths[0])
        return images_from_array(array, str(paths[0]), value_range)
    shape = _common_shape(paths) if size is None else size
    return read_image_set(paths, shape, value_range, with_labels=False).images


def _check_size(size: Any) -> None:
    """Raise ImageError unless a size is (C, H, W)."""
    is_size = isinstance(size, (list, tuple)) and len(size) == 3
    if not is_size or not all(isinstance(side, (int, np.integer)) and side > 0 for side in size):
        raise ImageError(f"size must be three positive integers (C, H, W), not {size!r}")


def _common_shape(paths: Sequence[Path]) -> tuple[int, int, int]:
    """Return the (C, H, W) of picture files. Raises ImageError if they have different sizes."""
    files = [file for path in paths if not is_array_file(path) for file in find_images(path).files]
    if not files:
        raise ImageError("there are no images to read; give the path of a file or a folder")
    pictures = [(file, open_picture(file, str(file))) for file in files]
    first, size = files[0], pictures[0][1].size
    for file, picture in pictures:
        if picture.size != size:
            raise ImageError(
                f"{first} has {size[0]}×{size[1]} pixels, but {file} {picture.size[0]}×{picture.size[1]}; "
                "give the size of the result with size=(C, H, W)"
            )
    is_grey = all(picture.mode in GREY_MODES for _, picture in pictures)
    return (1 if is_grey else 3, size[1], size[0])
