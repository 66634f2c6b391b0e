"""Images as values: float32 [N, C, H, W] in [-1, 1], read from files and arrays and written as files ask for.

x = pixel / 127.5 - 1, and back by rounding. How one file is decoded stands in pictures.py; npz and npy files in arrays.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import ImageError, InputError, OutputError
from .arrays import Arrays, is_array_file, read_arrays, required, save_npz
from .classes import named_labels
from .files import check_free, is_folder, replacing
from .pictures import INDEX, Survey, from_uint8, image_files, read_picture

if TYPE_CHECKING:
    from PIL import Image

ValueRange = tuple[float, float] | None  # of float images: (-1, 1), (0, 1), or None where it has to be found out

SIGNED, UNIT = (-1.0, 1.0), (0.0, 1.0)
VALUE_RANGES = {"-1,1": SIGNED, "0,1": UNIT}  # as the command line and servers write them
OUTPUT_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
CELL = 64  # a grid enlarges small images by a whole factor to about this many pixels, so that a person can see them
TOLERANCE = 0.001  # by which rounding may lead out of a range


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
    paths: Sequence[Path], sample_shape: tuple[int, int, int], value_range: ValueRange = None, with_labels: bool = True
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
        raise ImageError(f"{where}: images must be uint8, or floats in [-1, 1], not {images.dtype}{_conversion(images)}")
    return in_signed_range(images, f"{where}: images", value_range)


def from_pixels(pixels: np.ndarray, where: str, value_range: ValueRange = None) -> np.ndarray:
    """uint8 → float32 in [-1, 1]. Raises ImageError where the pixels are 0 and 1 alone, unless a value_range says that all is meant."""
    if value_range is None and pixels.max() == 1:
        raise ImageError(f"{where} have no value above 1, so they would be black; convert 0 and 1 to pixels with images * 255")
    return from_uint8(pixels)


def _conversion(images: np.ndarray) -> str:
    """What makes pixels of booleans or integers, for the end of a message; "" where that is unclear."""
    if images.dtype.kind not in "biu" or images.min() < 0 or images.max() > 255:
        return ""
    if images.max() <= 1:
        return "; convert 0 and 1 to pixels with (images * 255).astype('uint8')"
    return "; convert pixels from 0 to 255 with images.astype('uint8')"


def in_signed_range(images: np.ndarray, where: str, value_range: ValueRange = None) -> np.ndarray:
    """Floats in value_range → float32 in [-1, 1], clipped. Raises ImageError for other values, NaN and infinity.

    value_range: (-1, 1), or (0, 1), which is converted; None takes [-1, 1], but refuses arrays without a value below 0, which
    most likely lie in [0, 1] and would give pale pictures.
    """
    low, high = float(images.min()), float(images.max())
    if not np.isfinite([low, high]).all():
        raise ImageError(f"{where} must be finite floats, not {images.dtype} with NaN or infinity")
    least, most = value_range or SIGNED
    if low < least - TOLERANCE or high > most + TOLERANCE:
        hint = "; convert pixels from 0 to 255 with images / 127.5 - 1" if low >= 0 and 1 < high <= 255 else ""
        raise ImageError(f"{where} must lie in [{least:g}, {most:g}]; these go from {low:.3g} to {high:.3g}{hint}")
    if value_range is None and low >= -TOLERANCE:
        raise ImageError(
            f"{where} have no value below 0, so they seem to lie in [0, 1] instead of [-1, 1]; convert them with images * 2 - 1, or "
            "say which range is meant: value_range=(0, 1) or (-1, 1) of bcm_edge.load, --value-range 0,1 or -1,1 of the command line"
        )
    return np.clip(images * 2 - 1 if value_range == UNIT else images, -1, 1).astype(np.float32)


def check_value_range(value_range: Sequence[float] | None) -> ValueRange:
    """The range as a pair of floats. Raises InputError for another one than (-1, 1) and (0, 1)."""
    if value_range is None:
        return None
    pair = tuple(map(float, value_range)) if np.shape(value_range) == (2,) else ()
    if pair not in (SIGNED, UNIT):
        raise InputError(f"value_range must be (-1, 1) or (0, 1), not {value_range!r}")
    return SIGNED if pair == SIGNED else UNIT


def parse_value_range(text: str) -> ValueRange:
    """(-1, 1) from "-1,1", (0, 1) from "0,1". Raises InputError."""
    if text not in VALUE_RANGES:
        raise InputError(f"value_range {text!r} is unknown; give {' or '.join(VALUE_RANGES)}")
    return VALUE_RANGES[text]


def to_uint8(images: np.ndarray) -> np.ndarray:
    """float in [-1, 1], clipped → uint8, rounded to nearest."""
    return np.rint((np.clip(images, -1, 1) + 1) * 127.5).astype(np.uint8)


def mean_squared_error(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Reconstruction error: mean of (a/255 - b/255)² over the pixels of each image as uint8. Returns [N].

    The authors' measure, but for pixels rounded to nearest where they cut off the fraction.
    """
    difference = (to_uint8(a).astype(np.float64) - to_uint8(b)) / 255
    return np.square(difference).reshape(len(a), -1).mean(axis=1)


def check_output(path: Path, channels: int, force: bool, also: Sequence[str] = ()) -> None:
    """Raise OutputError if `save_images` could not write images of so many channels here. also: suffixes that the caller writes itself."""
    suffixes, suffix = (*OUTPUT_SUFFIXES, *also), path.suffix.lower()
    if suffix and suffix != ".npz" and suffix not in suffixes and not is_folder(path):
        raise OutputError(f"{path}: cannot write {path.suffix} files; use .npz, {', '.join(suffixes)} or a folder")
    if suffix != ".npz" and channels not in (1, 3):
        raise OutputError(f"{path}: images of {channels} channels cannot be written as pictures; use .npz")
    check_free(path, force, INDEX)


def save_images(images: np.ndarray, path: Path, force: bool = False, columns: int | None = None, arrays: Arrays | None = None) -> None:
    """Write float [N, C, H, W] in [-1, 1] as the path asks: .npz, an image file (a grid if N > 1), or a folder of PNG files.

    arrays: of N values each, such as seeds and labels, for the npz file or the folder's images.csv. columns: of a grid; by default
    it is about square.
    """
    check_output(path, images.shape[1], force)
    if path.suffix.lower() == ".npz":
        save_npz(path, {"images": images, **(arrays or {})}, force)
    elif path.suffix.lower() in OUTPUT_SUFFIXES:
        with replacing(path, force) as partial:
            picture = as_picture(to_uint8(images[0])) if len(images) == 1 else as_picture(grid(images, columns))
            picture.save(partial, format=_format(path), **_EXACT.get(_format(path), {}))
    else:
        with replacing(path, force, marker=INDEX) as partial:
            partial.mkdir()
            names = [f"{index:06d}.png" for index in range(len(images))]
            for name, image in zip(names, to_uint8(images), strict=True):
                as_picture(image).save(partial / name)
            given = {"file": names, **{key: values for key, values in (arrays or {}).items() if values is not None and values.ndim == 1}}
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


def _format(path: Path) -> str:
    from PIL import Image

    return Image.registered_extensions()[path.suffix.lower()]


def lossy_note(path: Path, channels: int) -> str:
    """What a picture file of this name does to the pixels, in a line for people; "" if it keeps them."""
    suffix = path.suffix.lower()
    if suffix in (".jpg", ".jpeg"):
        return f"{path}: JPEG changes pixels a little; write .png to keep them"
    if suffix == ".gif" and channels == 3:
        return f"{path}: GIF keeps 256 colours; PNG and APNG keep all"
    return ""


_EXACT = {"JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"lossless": True}}  # Pillow's options for the least loss


def _read_array_images(path: Path, sample_shape: tuple[int, int, int], value_range: ValueRange, with_labels: bool) -> ImageSet:
    arrays = read_arrays(path, "images")
    images = images_from_array(required(arrays, "images", path), str(path), value_range, sample_shape)
    labels = named_labels(arrays, str(path)) if with_labels else None
    if labels is not None and labels.shape != (len(images),):
        raise ImageError(f"{path}: labels has shape {list(labels.shape)}, but there must be one label for each of {len(images)} images")
    names = [f"{path.stem}[{i}]" for i in range(len(images))]
    return ImageSet(images, names, labels)
