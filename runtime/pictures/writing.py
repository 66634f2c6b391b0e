"""Write images to files: a picture, a grid of pictures, a folder of them, or npz."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...errors import OutputError
from ..pixels import to_uint8
from ..storage.arrays import Arrays, save_npz
from ..storage.files import check_free, is_folder, replacing
from .folders import INDEX

if TYPE_CHECKING:
    from PIL import Image

OUTPUT_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
CELL = 64  # pixels; a grid enlarges small images by an integer factor to about this size
GAP = 2  # pixels between the images of a grid
# Pillow's options for the smallest loss, by its name of the format.
_BEST_OPTIONS = {"JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"lossless": True}}


def check_output(path: Path, channels: int, force: bool, also: Sequence[str] = ()) -> None:
    """Raise OutputError if `save_images` could not write images to this path.

    channels: the number of channels of the images. also: further suffixes, which the caller writes itself.
    """
    suffixes, suffix = (*OUTPUT_SUFFIXES, *also), path.suffix.lower()
    if suffix and suffix != ".npz" and suffix not in suffixes and not is_folder(path):
        raise OutputError(
            f"{path}: cannot write {path.suffix} files; use .npz, {', '.join(suffixes)} or a folder"
        )
    if suffix != ".npz" and channels not in (1, 3):
        raise OutputError(f"{path}: images of {channels} channels cannot be written as pictures; use .npz")
    check_free(path, force, INDEX)


def save_images(
    images: np.ndarray,
    path: Path,
    force: bool = False,
    columns: int | None = None,
    arrays: Arrays | None = None,
) -> None:
    """Write images to a file or folder. Its name decides the format.

    images: float [N, C, H, W] in [-1, 1].
    path: .npz, an image file (a grid if N > 1), or a folder, in which each image becomes a PNG file.
    force: replace an existing output.
    columns: the columns of a grid; by default the grid is about square.
    arrays: further arrays of N values, such as seeds and labels, for the npz file or the folder's images.csv.

    Raises OutputError.
    """
    check_output(path, images.shape[1], force)
    suffix = path.suffix.lower()
    if suffix == ".npz":
        save_npz(path, {"images": images, **(arrays or {})}, force)
    elif suffix in OUTPUT_SUFFIXES:
        pixels = to_uint8(images[0]) if len(images) == 1 else grid(images, columns)
        _save_picture(pixels, path, force)
    else:
        _save_folder(images, path, force, arrays or {})


def grid(images: np.ndarray, columns: int | None = None) -> np.ndarray:
    """Return images in rows on a white sheet, each enlarged by an integer factor to about CELL pixels.

    images: float [N, C, H, W] in [-1, 1]. columns: images per row; by default the sheet is about square.
    Returns uint8 [C, H', W'].
    """
    pixels = to_uint8(images)
    count, channels, height, width = pixels.shape
    columns = columns or int(np.ceil(np.sqrt(count)))
    rows = -(-count // columns)
    factor = max(1, CELL // max(height, width))
    height, width = height * factor, width * factor
    sheet_shape = (channels, rows * (height + GAP) + GAP, columns * (width + GAP) + GAP)
    sheet = np.full(sheet_shape, 255, np.uint8)
    for index, image in enumerate(pixels.repeat(factor, axis=2).repeat(factor, axis=3)):
        row, column = divmod(index, columns)
        top = row * (height + GAP) + GAP
        left = column * (width + GAP) + GAP
        sheet[:, top : top + height, left : left + width] = image
    return sheet


def heat(error: np.ndarray) -> np.ndarray:
    """Show errors as colours: black for 0, over red and yellow, to white for 1 and more.

    error: float [N, 1, H, W], not negative. Returns [N, 3, H, W] in [-1, 1].
    """
    bands = np.arange(3, dtype=np.float32).reshape(1, 3, 1, 1)
    return np.clip(3 * error - bands, 0, 1) * 2 - 1


def as_picture(pixels: np.ndarray) -> Image.Image:
    """Return uint8 [C, H, W] with C = 1 or 3 as an image of Pillow."""
    from PIL import Image

    return Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0))


def lossy_note(path: Path, channels: int) -> str:
    """Return how the format of a picture file changes the pixels, as one line for people; "" if it does not.

    channels: the number of channels of the images.
    """
    suffix = path.suffix.lower()
    if suffix in (".jpg", ".jpeg"):
        return f"{path}: JPEG changes pixels a little; write .png to keep them"
    if suffix == ".gif" and channels == 3:
        return f"{path}: GIF keeps 256 colours; PNG and APNG keep all"
    return ""


def _save_picture(pixels: np.ndarray, path: Path, force: bool) -> None:
    from PIL import Image

    format_name = Image.registered_extensions()[path.suffix.lower()]
    with replacing(path, force) as partial:
        as_picture(pixels).save(partial, format=format_name, **_BEST_OPTIONS.get(format_name, {}))


def _save_folder(images: np.ndarray, path: Path, force: bool, arrays: Arrays) -> None:
    """Write a folder of PNG files with an index, images.csv: one column per array, one line per image."""
    names = [f"{index:06d}.png" for index in range(len(images))]
    columns = {"file": names}
    for name, values in arrays.items():
        if values is not None and values.ndim == 1:
            columns[name] = list(map(str, values))
    lines = [",".join(row) for row in (columns, *zip(*columns.values(), strict=True))]
    with replacing(path, force, marker=INDEX) as partial:
        partial.mkdir()
        for name, image in zip(names, to_uint8(images), strict=True):
            as_picture(image).save(partial / name)
        (partial / INDEX).write_text("\n".join(lines) + "\n")


def pairs(originals: np.ndarray, results: np.ndarray, columns: int) -> np.ndarray:
    """Return the images [M, C, H, W] of a grid: rows of originals, each above the row of their results.

    The last two rows are filled up with white.
    """
    white = np.ones((columns, *originals.shape[1:]), np.float32)
    rows = []
    for start in range(0, len(originals), columns):
        for images in (originals, results):
            row = images[start : start + columns]
            rows.append(np.concatenate([row, white[len(row) :]]))
    return np.concatenate(rows)
