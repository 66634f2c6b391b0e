"""Write images to files: a picture, a grid of pictures, a folder of them, or npz."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import OutputError
from ..pixels import to_uint8
from ..storage.arrays import Arrays, save_npz
from ..storage.files import check_free, is_folder, replacing
from .folders import INDEX
from .grids import Grid, as_picture, enlargement, labelled_grid, rows_of
from .metadata import of_image, png_text

OUTPUT_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
# Pillow's options for the smallest loss, by its name of the format.
_BEST_OPTIONS: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 95, "subsampling": 0},
    "WEBP": {"lossless": True},
}


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
    *,
    grid: Grid | None = None,
    scale: int | None = None,
    facts: Mapping[str, Any] | None = None,
) -> None:
    """Write images to a file or folder. Its name decides the format.

    images: float [N, C, H, W] in [-1, 1].
    path: .npz, an image file (a grid if N > 1), or a folder, in which each image becomes a PNG file.
    force: replace an existing output.
    columns: the columns of a grid without labels; by default it is about square.
    arrays: further arrays of N values, such as seeds and labels, for the npz file or the folder's images.csv.
    grid: what an image file shows instead of `images`.
    scale: how many times larger an image file shows its images (default: at least CELL pixels). 1: the plain
        pixels. Files in a folder always have the plain pixels.
    facts: the origin of the images, for the text of PNG files (`png_text`). Without them, only the scale of
        an enlarged image is written.

    Raises OutputError.
    """
    check_output(path, images.shape[1], force)
    suffix = path.suffix.lower()
    if suffix == ".npz":
        save_npz(path, {"images": images, **(arrays or {})}, force)
    elif suffix not in OUTPUT_SUFFIXES:
        _save_folder(images, path, force, arrays or {}, facts)
    elif grid is None and len(images) == 1:
        factor = scale or enlargement(*images.shape[2:])
        pixels = to_uint8(images[0]).repeat(factor, axis=1).repeat(factor, axis=2)
        _save_picture(pixels, path, force, {**(facts or {}), "scale": factor})
    else:
        sheet = grid or Grid(rows_of(images, columns))
        _save_picture(labelled_grid(sheet, scale), path, force, facts)


def heat(error: np.ndarray) -> np.ndarray:
    """Show errors as colours: black for 0, over red and yellow, to white for 1 and more.

    error: float [N, 1, H, W], not negative. Returns [N, 3, H, W] in [-1, 1].
    """
    bands = np.arange(3, dtype=np.float32).reshape(1, 3, 1, 1)
    return np.clip(3 * error - bands, 0, 1) * 2 - 1


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


def _save_picture(pixels: np.ndarray, path: Path, force: bool, facts: Mapping[str, Any] | None) -> None:
    from PIL import Image

    format_name = Image.registered_extensions()[path.suffix.lower()]
    options = dict(_BEST_OPTIONS.get(format_name, {}))
    if format_name == "PNG" and facts:
        options["pnginfo"] = png_text(facts)
    with replacing(path, force) as partial:
        as_picture(pixels).save(partial, format=format_name, **options)


def _save_folder(
    images: np.ndarray, path: Path, force: bool, arrays: Arrays, facts: Mapping[str, Any] | None
) -> None:
    """Write a folder of PNG files with an index, images.csv: one column per array, one line per image."""
    names = [f"{index:06d}.png" for index in range(len(images))]
    columns = {"file": names}
    for name, values in arrays.items():
        if values is not None and values.ndim == 1:
            columns[name] = list(map(str, values))
    lines = [",".join(row) for row in (columns, *zip(*columns.values(), strict=True))]
    with replacing(path, force, marker=INDEX) as partial:
        partial.mkdir()
        for index, (name, image) in enumerate(zip(names, to_uint8(images), strict=True)):
            text = None if facts is None else png_text(of_image(facts, index))
            as_picture(image).save(partial / name, pnginfo=text)
        (partial / INDEX).write_text("\n".join(lines) + "\n")
