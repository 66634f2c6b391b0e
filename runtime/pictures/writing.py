"""Images to files: a picture, a grid of pictures, a folder of them, or npz."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...errors import OutputError
from ..pixels import to_uint8
from ..storage.arrays import Arrays, save_npz
from ..storage.files import check_free, is_folder, replacing
from .formats import INDEX

if TYPE_CHECKING:
    from PIL import Image

OUTPUT_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
CELL = 64  # a grid enlarges small images by a whole factor to about this many pixels, so that a person can see them
_EXACT = {
    "JPEG": {"quality": 95, "subsampling": 0},
    "WEBP": {"lossless": True},
}  # Pillow's options for the least loss


def check_output(path: Path, channels: int, force: bool, also: Sequence[str] = ()) -> None:
    """Raise OutputError if `save_images` could not write images of so many channels here. also: suffixes that the caller writes itself."""
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
    """Write float [N, C, H, W] in [-1, 1] as the path asks: .npz, an image file (a grid if N > 1), or a folder of PNG files.

    arrays: of N values each, such as seeds and labels, for the npz file or the folder's images.csv. columns: of a grid; by default
    it is about square.
    """
    check_output(path, images.shape[1], force)
    if path.suffix.lower() == ".npz":
        save_npz(path, {"images": images, **(arrays or {})}, force)
    elif path.suffix.lower() in OUTPUT_SUFFIXES:
        with replacing(path, force) as partial:
            picture = (
                as_picture(to_uint8(images[0])) if len(images) == 1 else as_picture(grid(images, columns))
            )
            picture.save(partial, format=_format(path), **_EXACT.get(_format(path), {}))
    else:
        with replacing(path, force, marker=INDEX) as partial:
            partial.mkdir()
            names = [f"{index:06d}.png" for index in range(len(images))]
            for name, image in zip(names, to_uint8(images), strict=True):
                as_picture(image).save(partial / name)
            given = {
                "file": names,
                **{
                    key: values
                    for key, values in (arrays or {}).items()
                    if values is not None and values.ndim == 1
                },
            }
            lines = [",".join(map(str, row)) for row in (given, *zip(*given.values(), strict=True))]
            (partial / INDEX).write_text("\n".join(lines) + "\n")


def grid(images: np.ndarray, columns: int | None = None) -> np.ndarray:
    """uint8 [C, H', W']: the images in rows on white, each enlarged by a whole factor to about CELL pixels."""
    pixels = to_uint8(images)
    n, c, h, w = pixels.shape
    columns = columns or int(np.ceil(np.sqrt(n)))
    factor, gap = max(1, CELL // max(h, w)), 2
    cell_h, cell_w = h * factor + gap, w * factor + gap
    sheet = np.full((c, -(-n // columns) * cell_h + gap, columns * cell_w + gap), 255, np.uint8)
    for index, image in enumerate(pixels.repeat(factor, axis=2).repeat(factor, axis=3)):
        top, left = index // columns * cell_h + gap, index % columns * cell_w + gap
        sheet[:, top : top + h * factor, left : left + w * factor] = image
    return sheet


def heat(error: np.ndarray) -> np.ndarray:
    """Errors in colours: float [N, 1, H, W] from 0 → [N, 3, H, W] in [-1, 1], black (0) over red and yellow to white (1 or more)."""
    bands = np.arange(3, dtype=np.float32).reshape(1, 3, 1, 1)
    return np.clip(3 * error - bands, 0, 1) * 2 - 1


def as_picture(pixels: np.ndarray) -> Image.Image:
    from PIL import Image

    return Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0))


def lossy_note(path: Path, channels: int) -> str:
    """What a picture file of this name does to the pixels, in a line for people; "" if it keeps them."""
    suffix = path.suffix.lower()
    if suffix in (".jpg", ".jpeg"):
        return f"{path}: JPEG changes pixels a little; write .png to keep them"
    if suffix == ".gif" and channels == 3:
        return f"{path}: GIF keeps 256 colours; PNG and APNG keep all"
    return ""


def _format(path: Path) -> str:
    from PIL import Image

    return Image.registered_extensions()[path.suffix.lower()]
