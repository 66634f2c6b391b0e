"""Convert the images, latents and masks of a caller to arrays.

They may be arrays of numpy, tensors of torch, images of Pillow, files, or lists of these. Neither torch nor
Pillow is imported to recognise them: a program with a tensor or an image of Pillow has imported the library.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ...errors import BcmError, ImageError
from ..pixels import ValueRange, from_pixels, in_signed_range
from ..storage.arrays import is_array_file
from ..storage.user_paths import path_text
from ..wording import first_line
from .formats import open_picture, read_picture
from .images import check_image_type, read_image_set
from .masks import fits, painted_hole, read_holes


class PillowImage(Protocol):
    """An image of Pillow, `PIL.Image.Image`."""

    __module__ = "bcm_edge"  # the name of this class in the texts of help()

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        ...

    @property
    def mode(self) -> str:
        """The name of the pixel format, for example "RGB"."""
        ...


class Tensor(Protocol):
    """A tensor of torch, `torch.Tensor`: on any device, floats or uint8, with or without gradients."""

    __module__ = "bcm_edge"

    def detach(self) -> Any:
        """The tensor without its gradients."""
        ...

    def cpu(self) -> Any:
        """The tensor in the memory of the host."""
        ...


# Modules with public functions have no `from __future__ import annotations`, so that help() shows what these
# names stand for.
Array = np.ndarray | Tensor
Picture = np.ndarray | Tensor | PillowImage | str | os.PathLike[str]
Images = Picture | Sequence[Picture]
Latents = Array | Sequence[Array]
Holes = Picture | Sequence[Picture]


@dataclass
class _Part:
    """Images of one argument, or of one entry of a list."""

    images: np.ndarray  # [n, C, H, W]
    is_checked: bool  # whether they are float32 in [-1, 1], as those of files


def as_images(
    values: Any, shape: tuple[int, int, int], noun: str = "images", value_range: ValueRange = None
) -> np.ndarray:
    """Return images as float32 [N, *shape] in [-1, 1]. Raises ImageError.

    values: images in any form; floats in value_range (see `in_signed_range`). A single image gives N = 1.
    shape: (C, H, W). Images of Pillow and of files are cropped and resized to it, arrays must have it.
    noun: how messages call the images.
    """
    if not _is_list(values):
        return _checked([_part(values, shape, noun, value_range)], noun, value_range)[0]
    named = [(value, f"{noun}[{index}]") for index, value in enumerate(values)]
    parts = [_part(value, shape, name, value_range) for value, name in named]
    return np.concatenate(_checked(parts, noun, value_range))


def as_latents(values: Any, shape: tuple[int, int, int]) -> np.ndarray:
    """Return latents as an array [N, *shape] of its own type. Raises ImageError.

    values: an array or a tensor [N, *shape] or [*shape], or a list of them.
    """
    if not _is_list(values):
        return _with_batch_axis(values, shape, "latents")
    return np.concatenate([_with_batch_axis(value, shape, "latents") for value in values])


def as_holes(holes: Any, images: Any, sample_shape: tuple[int, int, int]) -> np.ndarray:
    """Return masks as an array, which is not 0 where a pixel is unknown.

    holes: an array or a tensor, whose shape is kept; an image of Pillow or a picture file that is white
    where a pixel is unknown: bool [1, 1, H, W]; an npz or npy file; or a list of these, one per image.
    images: the images with the holes, in any form. Pictures must have the size of the mask.
    sample_shape: (C, H, W) of the model.

    Raises ImageError.
    """
    _check_mask_sizes(holes, images)
    if _is_list(holes):
        named = [(hole, f"holes[{index}]") for index, hole in enumerate(holes)]
        unknown = [_hole(hole, sample_shape, name) for hole, name in named]
        if len({hole.shape for hole in unknown}) > 1:
            shapes = ", ".join(str(list(hole.shape)) for hole in unknown)
            raise ImageError(f"holes have different shapes: {shapes}")
        return np.stack(unknown)
    if _is_file(holes):
        return read_holes(_path(holes, "holes"), [], sample_shape)
    return _hole(holes, sample_shape, "holes")


def size_of(values: Any, channels: int) -> tuple[int, int] | None:
    """Return the height and width of images that are arrays or tensors, else None."""
    first = values[0] if _is_list(values) else values
    if _is_file(first) or _is_pillow(first):
        return None
    array = _array(first, "images")
    is_last = array.dtype == np.uint8 and array.ndim > 2 and array.shape[-1] == channels != array.shape[-3]
    shape = array.shape[-3:-1] if is_last else array.shape[-2:]
    return (shape[0], shape[1]) if len(shape) == 2 else (0, 0)


def _check_mask_sizes(holes: Any, images: Any) -> None:
    """Raise ImageError unless masks fit images, in pixels, where both are pictures."""
    mask_sizes, sizes = _picture_sizes(holes, "holes"), _picture_sizes(images, "images")
    if len(mask_sizes) == 1:
        mask_sizes *= len(sizes)
    for index, (mask_size, size) in enumerate(zip(mask_sizes, sizes, strict=False)):
        if mask_size and size and not fits(mask_size, size):
            mask, image = ("×".join(map(str, each)) for each in (mask_size, size))
            raise ImageError(
                f"a mask must have the size of its image, but the mask of image {index} has {mask} pixels, "
                f"the image {image}"
            )


def _picture_sizes(values: Any, noun: str) -> list[tuple[int, int] | None]:
    """Return (width, height) of each value that is an image of Pillow or a picture file, None of others."""
    sizes: list[tuple[int, int] | None] = []
    for value in values if _is_list(values) else [values]:
        sizes.append(None)
        if _is_pillow(value):
            sizes[-1] = open_picture(value, noun).size
        elif _is_file(value):
            path = _path(value, noun)
            if os.path.isfile(path) and not is_array_file(path):  # noqa: PTH113, a name may be too long
                sizes[-1] = open_picture(path, str(path)).size
    return sizes


def _part(value: Any, shape: tuple[int, int, int], noun: str, value_range: ValueRange) -> _Part:
    if _is_file(value):
        return _Part(read_image_set([_path(value, noun)], shape, value_range, with_labels=False).images, True)
    if _is_pillow(value):
        return _Part(read_picture(value, shape, noun)[None], True)
    images = _with_batch_axis(value, shape, noun)
    check_image_type(images, noun)
    return _Part(images, False)


def _checked(parts: Sequence[_Part], noun: str, value_range: ValueRange) -> list[np.ndarray]:
    """Return the parts as float32 in [-1, 1]. The range is checked of all floats, and of all pixels."""
    results = [part.images for part in parts]
    unchecked = [index for index, part in enumerate(parts) if not part.is_checked]
    pixels = [index for index in unchecked if results[index].dtype == np.uint8]
    floats = [index for index in unchecked if results[index].dtype != np.uint8]
    for indices, convert in ((pixels, from_pixels), (floats, in_signed_range)):
        if len(indices) == 1:
            results[indices[0]] = convert(results[indices[0]], noun, value_range)
        elif indices:
            together = convert(np.concatenate([results[index] for index in indices]), noun, value_range)
            ends = np.cumsum([len(results[index]) for index in indices])
            for index, images in zip(indices, np.split(together, ends[:-1]), strict=True):
                results[index] = images
    return results


def _hole(hole: Any, sample_shape: tuple[int, int, int], noun: str) -> np.ndarray:
    if _is_file(hole):
        path = _path(hole, noun)
        return painted_hole(open_picture(path, str(path)), str(path), sample_shape)
    if _is_pillow(hole):
        return painted_hole(open_picture(hole, noun), noun, sample_shape)
    array = _array(hole, noun)
    if array.dtype.kind not in "biuf" or not np.isfinite(array).all():
        raise ImageError(f"{noun} must be booleans or finite numbers, not {array.dtype}")
    unknown = np.asarray(array != 0)
    return unknown[None] if noun != "holes" and unknown.ndim == 2 else unknown


def _with_batch_axis(values: Any, shape: tuple[int, int, int], noun: str) -> np.ndarray:
    """Return an array or a tensor as an array [N, *shape]. Raises ImageError for other shapes and objects.

    Accepted are [N, *shape] and [*shape]; [N, H, W] and [H, W] for one channel; and uint8 [N, H, W, C] and
    [H, W, C].
    """
    array = _array(values, noun)
    channels, height, width = shape
    if array.ndim == 4 and array.shape[1:] == shape and len(array):
        return array
    if array.shape == shape:
        return array[None]
    if channels == 1 and array.ndim in (2, 3) and array.shape[-2:] == (height, width) and array.size:
        return array.reshape(-1, *shape)
    if array.ndim in (3, 4) and array.shape[-3:] == (height, width, channels) and array.size:
        if array.dtype == np.uint8:
            return np.moveaxis(array, -1, -3).reshape(-1, *shape)
        advice = f"; move the channels to the front with np.moveaxis({noun}, -1, -3)"
    else:
        advice = ""
    expected = ", ".join(map(str, shape))
    raise ImageError(f"{noun} have shape {list(array.shape)}, the model takes [N, {expected}]{advice}")


def _array(values: Any, noun: str) -> np.ndarray:
    """Return an array, a tensor, or numbers in nested lists, as an array. Raises ImageError for others."""
    values = from_tensor(values, noun)
    if isinstance(values, np.ndarray):
        return values
    try:
        array = np.asarray(values)
    except (TypeError, RuntimeError, OSError) as error:  # of an image of Pillow that is damaged, for example
        raise ImageError(f"{noun} cannot be converted to an array ({first_line(error)})") from error
    except ValueError:  # rows of different lengths
        array = np.array(None)
    if array.dtype.kind in "OUS":
        is_picture = not noun.startswith("latents")
        forms = "arrays, tensors, images of Pillow, paths" if is_picture else "arrays or tensors"
        raise ImageError(f"{noun} must be {forms}, or a list of these, not {type(values).__name__}")
    return array


def from_tensor(values: Any, noun: str, error: type[BcmError] = ImageError) -> Any:
    """Return a tensor of torch, or an array of a subclass, as a plain array. Others are returned unchanged.

    noun: how messages call the values. Raises `error` for values that an array cannot have.
    """
    if isinstance(values, np.ndarray):
        if np.ma.is_masked(values):
            raise error(f"{noun} have masked values; give them a value with {noun}.filled(…)")
        return np.asarray(values)
    if not _is_tensor(values):
        return values
    try:
        tensor = values.detach().cpu()
        if str(tensor.dtype) == "torch.bfloat16":  # numpy has no such type
            tensor = tensor.float()
        return tensor.numpy()
    except (TypeError, RuntimeError) as problem:  # of a sparse tensor, for example
        raise error(f"{noun} cannot be converted to an array ({first_line(problem)})") from problem


def _is_tensor(value: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def _is_pillow(value: Any) -> bool:
    pillow = sys.modules.get("PIL.Image")
    return pillow is not None and isinstance(value, pillow.Image)


def _is_file(value: Any) -> bool:
    return isinstance(value, (str, os.PathLike))


def _path(value: Any, noun: str) -> Path:
    return Path(path_text(value, noun, ImageError))


def _is_list(values: Any) -> bool:
    """Return whether values are a list of images, and not an image, or numbers in nested lists."""
    if not isinstance(values, (list, tuple)) or not values:
        return False
    return not isinstance(values[0], (list, tuple, int, float))
