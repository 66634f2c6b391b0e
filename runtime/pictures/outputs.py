"""The forms in which methods return images: arrays of floats or pixels, and images of Pillow."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from ...errors import ImageError, InputError, OutputError
from ..pixels import SIGNED, to_uint8
from ..storage.user_paths import path_text
from .grids import as_picture
from .inputs import as_images
from .writing import save_images

if TYPE_CHECKING:
    import PIL.Image

# float: float32 in [-1, 1]. uint8: pixels from 0 to 255. pil: images of Pillow.
ArrayOutput = Literal["float", "uint8"]
PillowOutput = Literal["pil"]
OutputType = Literal["float", "uint8", "pil"]
PillowImages = list["PIL.Image.Image"]


def check_output_type(output_type: object, sample_shape: tuple[int, int, int]) -> None:
    """Raise InputError for an unknown form, and ImageError if images [C, H, W] cannot have this form."""
    if not isinstance(output_type, str) or output_type not in get_args(OutputType):
        forms = ", ".join(map(repr, get_args(OutputType)))
        raise InputError(f"output_type must be one of {forms}, not {output_type!r}")
    channels = sample_shape[0]
    if output_type == "pil" and channels not in (1, 3):
        raise ImageError(
            f"images of {channels} channels cannot be images of Pillow; use output_type='float' or 'uint8'"
        )


def in_form(images: np.ndarray, output_type: OutputType) -> Any:
    """Return images, float32 in [-1, 1] or uint8 of shape [..., C, H, W], in a form that has been checked.

    Images of Pillow are in a list, or in lists of lists if `images` has more axes in front.
    """
    if output_type == "float":
        return images
    pixels = to_uint8(images)
    return pixels if output_type == "uint8" else _pictures(pixels)


def save(
    images: Any,
    path: str | os.PathLike[str],
    sample_shape: tuple[int, int, int],
    force: bool,
    scale: int | None = None,
) -> None:
    """Write what a method returned, in any form, as `save_images` does. Raises ImageError, OutputError.

    A row of a grid has the images of one list or, of an array, those of one entry of its first axis, if there
    are lists of lists, or an axis more than [N, C, H, W].
    """
    columns = None
    if isinstance(images, np.ndarray) and images.ndim == 5:
        columns, images = images.shape[1], images.reshape(-1, *images.shape[2:])
    elif isinstance(images, (list, tuple)) and images and isinstance(images[0], (list, tuple)):
        lengths = {len(row) if isinstance(row, (list, tuple)) else 1 for row in images}
        if len(lengths) > 1:
            raise ImageError(f"rows of images have different lengths: {', '.join(map(str, sorted(lengths)))}")
        columns, images = lengths.pop(), [image for row in images for image in row]
    checked = as_images(images, sample_shape, value_range=SIGNED)
    save_images(checked, Path(path_text(path, "path", OutputError)), force, columns, scale=scale)


def _pictures(pixels: np.ndarray | Sequence[np.ndarray]) -> list[Any]:
    return [_pictures(part) if part.ndim > 3 else as_picture(part) for part in pixels]
