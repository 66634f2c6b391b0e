"""Which pixels are to be filled in: read from a mask, from transparency, or from an npz file.

In a mask white is the hole, and transparent pixels count as black; in a picture, the transparent pixels are the hole. Both are cropped
and resized as the picture is (runtime/pictures/formats.py); a pixel of which a five-hundredth or more lies in the hole is in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ...errors import ImageError
from ..storage.arrays import is_array_file, read_arrays, required
from .formats import image_files, open_picture

HALF = 128  # grey values, and transparencies, from which a pixel counts


def read_holes(mask: Path | None, pictures: Sequence[Path], sample_shape: tuple[int, int, int]) -> np.ndarray:
    """bool [N or 1, 1, H, W], True where unknown; of an npz file in the shape it has there.

    mask: a picture for all images, or an npz with `masks`; None takes the pictures' own transparency, or `masks` of the npz they are in.
    Raises ImageError.
    """
    in_arrays = len(pictures) == 1 and is_array_file(pictures[0])
    if mask is None and in_arrays:
        mask = pictures[0]
    if mask is not None and is_array_file(mask):
        arrays = read_arrays(mask, "masks")
        return _checked(
            required(
                arrays, "masks", mask, "; a mask is given as an array `masks`, or as a picture with --mask"
            ),
            mask,
        )
    files = [] if in_arrays else [file for path in pictures for file in image_files(path)]
    if mask is None:
        return np.stack([_hole(file, True, sample_shape) for file in files])
    size = _size(mask)
    for file in files:
        if _size(file) != size:
            theirs, ours = ("×".join(map(str, of)) for of in (size, _size(file)))
            raise ImageError(f"{mask}: a mask of {theirs} pixels does not fit {file}, which has {ours}")
    return _hole(mask, False, sample_shape)[None]


def _checked(masks: np.ndarray, path: Path) -> np.ndarray:
    """bool, True where a number is not 0. Raises ImageError for what is no mask."""
    if masks.dtype.kind not in "biuf" or not np.isfinite(masks).all():
        raise ImageError(
            f"{path}: masks must be booleans or finite numbers, not {masks.dtype}; what is not 0 is filled in"
        )
    return masks != 0


def _hole(path: Path, transparent: bool, sample_shape: tuple[int, int, int]) -> np.ndarray:
    """bool [1, H, W]."""
    from PIL import Image, ImageOps

    _, height, width = sample_shape
    picture = open_picture(path, str(path))
    if transparent:
        if not picture.has_transparency_data:
            raise ImageError(f"{path}: nothing in it is transparent; give a mask with --mask")
        values = np.asarray(picture.convert("RGBA").getchannel("A"))
    else:
        if picture.has_transparency_data:  # what is not painted is not to be filled in
            picture = Image.alpha_composite(Image.new("RGBA", picture.size, "black"), picture.convert("RGBA"))
        values = np.asarray(picture.convert("L"))
    unknown = (values < HALF) if transparent else (values >= HALF)
    if not unknown.any():
        told = (
            f"the lowest opacity is {values.min()}"
            if transparent
            else f"the brightest pixel has {values.max()}"
        )
        raise ImageError(
            f"{path}: no hole in it, for which a pixel has to be {'below' if transparent else 'at least'} {HALF} of 255; {told}"
        )
    hole = Image.fromarray(np.where(unknown, 255, 0).astype(np.uint8))
    if hole.size != (width, height):
        hole = ImageOps.fit(hole, (width, height), Image.Resampling.BOX)
    found = np.asarray(hole) > 0
    if not found.any():
        raise ImageError(
            f"{path}: its hole lies outside the middle {width}:{height} part, to which images are cropped"
        )
    return found[None]


def _size(path: Path) -> tuple[int, int]:
    return open_picture(path, str(path)).size
