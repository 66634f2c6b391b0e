"""Read which pixels are to be filled in: from a mask, from transparency, or from an npz file.

In a mask, white pixels are the hole, and transparent pixels count as black. In a picture, the transparent
pixels are the hole. Masks are cropped and resized like pictures (formats.py). A pixel belongs to the hole if
at least 1/500 of its area does.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...errors import ImageError
from ..storage.arrays import is_array_file, read_arrays, required
from ..wording import argument
from .folders import find_images
from .formats import open_picture

if TYPE_CHECKING:
    from PIL import Image

HALF = 128  # in a mask, values from here on are the hole; in a picture, opacities below it


def read_holes(mask: Path | None, pictures: Sequence[Path], sample_shape: tuple[int, int, int]) -> np.ndarray:
    """Return bool [N or 1, 1, H, W], True for unknown pixels. An array of an npz file keeps its shape.

    mask: a picture that applies to all images, or an npz file with `masks`. None: the transparency of the
    pictures or, if they are in an npz file, its array `masks`.
    pictures: the images that the mask is for.
    sample_shape: (C, H, W) of the model.

    Raises ImageError.
    """
    in_arrays = len(pictures) == 1 and is_array_file(pictures[0])
    if mask is None and in_arrays:
        mask = pictures[0]
    if mask is not None and is_array_file(mask):
        return _from_arrays(mask)
    files: list[Path] = []
    if not in_arrays:
        for path in pictures:
            files += find_images(path).files
    if mask is None:
        return np.stack([_transparent_hole(file, sample_shape) for file in files])
    _check_sizes(mask, files)
    return painted_hole(open_picture(mask, str(mask)), str(mask), sample_shape)[None]


def _from_arrays(path: Path) -> np.ndarray:
    """Return the array `masks` as bool, True where a number is not 0. Raises ImageError."""
    arrays = read_arrays(path, "masks")
    advice = f"; a mask is given as an array `masks`, or as a picture with {argument('holes=', '--mask')}"
    masks = required(arrays, "masks", path, advice)
    if masks.dtype.kind not in "biuf" or not np.isfinite(masks).all():
        raise ImageError(
            f"{path}: masks must be booleans or finite numbers, not {masks.dtype}; "
            "pixels that are not 0 are filled in"
        )
    return masks != 0


def fits(mask_size: tuple[int, int], size: tuple[int, int]) -> bool:
    """Return whether a mask may be for a picture: its size is the same, or larger by a whole factor.

    It is larger if it was painted on a picture that was enlarged. Sizes are width and height in pixels.
    """
    factor = max(1, mask_size[0] // size[0])
    return mask_size == (factor * size[0], factor * size[1])


def _check_sizes(mask: Path, files: Sequence[Path]) -> None:
    """Raise ImageError unless the size of the mask fits all pictures."""
    mask_size = open_picture(mask, str(mask)).size
    for file in files:
        size = open_picture(file, str(file)).size
        if not fits(mask_size, size):
            (mask_width, mask_height), (width, height) = mask_size, size
            raise ImageError(
                f"{mask}: the mask has {mask_width}×{mask_height} pixels, but {file} has {width}×{height}"
            )


def _transparent_hole(path: Path, sample_shape: tuple[int, int, int]) -> np.ndarray:
    """Return bool [1, H, W], True for transparent pixels of a picture. Raises ImageError."""
    picture = open_picture(path, str(path))
    if not picture.has_transparency_data:
        raise ImageError(f"{path}: has no transparent pixels; give a mask with --mask")
    opacities = np.asarray(picture.convert("RGBA").getchannel("A"))
    if opacities.min() >= HALF:
        raise ImageError(
            f"{path}: no hole found; its pixels need an opacity below {HALF} of 255, "
            f"and the lowest opacity is {opacities.min()}"
        )
    return _fitted(opacities < HALF, str(path), sample_shape)


def painted_hole(picture: Image.Image, where: str, sample_shape: tuple[int, int, int]) -> np.ndarray:
    """Return bool [1, H, W], True for white pixels of a mask that `open_picture` returned. Raises ImageError.

    where: the name of the mask in error messages.
    """
    from PIL import Image

    if picture.has_transparency_data:  # transparent pixels are not painted, so they are not filled in
        black = Image.new("RGBA", picture.size, "black")
        picture = Image.alpha_composite(black, picture.convert("RGBA"))
    values = np.asarray(picture.convert("L"))
    if values.max() < HALF:
        raise ImageError(
            f"{where}: no hole found; its pixels need a brightness of at least {HALF} of 255, "
            f"and the brightest pixel has {values.max()}"
        )
    return _fitted(values >= HALF, where, sample_shape)


def _fitted(unknown: np.ndarray, where: str, sample_shape: tuple[int, int, int]) -> np.ndarray:
    """Crop and resize bool [H', W'] to [1, H, W], like a picture. Raises ImageError for an empty hole."""
    from PIL import Image, ImageOps

    _, height, width = sample_shape
    hole = Image.fromarray(np.where(unknown, 255, 0).astype(np.uint8))
    if hole.size != (width, height):
        hole = ImageOps.fit(hole, (width, height), Image.Resampling.BOX)
    fitted = np.asarray(hole) > 0
    if not fitted.any():
        raise ImageError(
            f"{where}: its hole lies outside the central {width}:{height} part, to which images are cropped"
        )
    return fitted[None]
