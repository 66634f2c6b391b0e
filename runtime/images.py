"""Pictures in and out: PNG and friends ↔ float32 [N, C, H, W] in [-1, 1], and the npz files the command line exchanges.

An image of another size is cropped centrally to the model's aspect ratio and resized bicubically (antialiased); colour and
grey convert; EXIF rotation is honoured; transparency is laid over white. x = pixel / 127.5 - 1, and back by rounding.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from ..errors import ImageError, OutputError
from .files import check_free, replacing

if TYPE_CHECKING:
    from PIL import Image

Arrays = Mapping[str, np.ndarray | None]  # names in an npz file; None is left out

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
INDEX = "images.csv"  # in a folder of images that was written here: file, seed and label of each
CELL = 64  # a grid enlarges small images by a whole factor to about this many pixels, so that a person can see them


@dataclass(frozen=True)
class ImageSet:
    """images: float32 [N, C, H, W] in [-1, 1]; names: one per image; labels: integers [N] where the source had them."""

    images: np.ndarray
    names: list[str]
    labels: np.ndarray | None = None


def read_images(paths: Sequence[Path], sample_shape: tuple[int, int, int]) -> ImageSet:
    """Read image files, folders of them, or one npz with `images` (float32 in [-1, 1] or uint8). Raises ImageError."""
    if len(paths) == 1 and paths[0].suffix == ".npz":
        return _read_npz_images(paths[0], sample_shape)
    files = [file for path in paths for file in image_files(path)]
    images = np.stack([read_picture(file, str(file), sample_shape) for file in files])
    return ImageSet(images, [file.stem for file in files])


def image_files(path: Path) -> list[Path]:
    """The file itself, or a folder's images in the order of their names. Raises ImageError."""
    if not path.is_dir():
        return [path]
    files = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES)
    if not files:
        raise ImageError(f"{path}: no images in this folder (looked for {', '.join(SUFFIXES)})")
    return files


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """All arrays of an npz file; pickled objects are refused. Raises ImageError."""
    if not path.exists():
        raise ImageError(f"{path}: nothing there")
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, RuntimeError, AttributeError, TypeError) as error:
        raise ImageError(f"{path}: not a readable npz file of arrays ({error})") from error


def from_uint8(pixels: np.ndarray) -> np.ndarray:
    """uint8 → float32 in [-1, 1]."""
    return pixels.astype(np.float32) / np.float32(127.5) - 1


def images_from_array(array: np.ndarray, where: str) -> np.ndarray:
    """float32 [N, C, H, W] in [-1, 1] from what npz files hold. Raises ImageError.

    array: uint8 [N, H, W], [N, H, W, C] or [N, C, H, W] with C = 1 or 3, or float [N, C, H, W] in [-1, 1].
    """
    images = array[:, None] if array.ndim == 3 else array
    if images.ndim != 4 or not images.size:
        raise ImageError(f"{where}: images has shape {list(array.shape)}; expected N pictures")
    if images.dtype == np.uint8:
        return from_uint8(images if images.shape[1] in (1, 3) else images.transpose(0, 3, 1, 2))
    if np.issubdtype(images.dtype, np.floating) and np.abs(images).max() <= 1.001:  # false for NaN too
        return np.clip(images, -1, 1).astype(np.float32)
    raise ImageError(f"{where}: images must be uint8, or floats in [-1, 1]")


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
    suffixes = (*SUFFIXES, *also)
    if path.suffix != ".npz" and path.suffix.lower() not in suffixes and path.suffix and not path.is_dir():
        raise OutputError(f"{path}: cannot write {path.suffix} files; use .npz, {', '.join(suffixes)} or a folder")
    if path.suffix != ".npz" and channels not in (1, 3):
        raise OutputError(f"{path}: images of {channels} channels cannot be written as pictures; use .npz")
    check_free(path, force, INDEX)


def save_images(images: np.ndarray, path: Path, force: bool = False, columns: int | None = None, arrays: Arrays | None = None) -> None:
    """Write float [N, C, H, W] in [-1, 1] as the path asks: .npz, an image file (a grid if N > 1), or a folder of PNG files.

    arrays: of N values each, such as seeds and labels, for the npz file or the folder's images.csv. columns: of a grid; by default
    it is about square.
    """
    check_output(path, images.shape[1], force)
    if path.suffix == ".npz":
        save_npz(path, {"images": images, **(arrays or {})}, force)
    elif path.suffix.lower() in SUFFIXES:
        with replacing(path, force) as partial:
            picture = as_picture(to_uint8(images[0])) if len(images) == 1 else as_picture(grid(images, columns))
            picture.save(partial, format=_format(path))
    else:
        with replacing(path, force, marker=INDEX) as partial:
            partial.mkdir()
            names = [f"{index:06d}.png" for index in range(len(images))]
            for name, image in zip(names, to_uint8(images), strict=True):
                as_picture(image).save(partial / name)
            given = {"file": names, **{key: values for key, values in (arrays or {}).items() if values is not None and values.ndim == 1}}
            lines = [",".join(map(str, row)) for row in (given, *zip(*given.values(), strict=True))]
            (partial / INDEX).write_text("\n".join(lines) + "\n")


def save_npz(path: Path, arrays: Arrays, force: bool = False) -> None:
    """Write the arrays that are given to one npz file, whole or not at all."""
    with replacing(path, force) as partial, partial.open("wb") as file:
        given: dict[str, Any] = {name: array for name, array in arrays.items() if array is not None}
        np.savez(file, **given)


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


def read_picture(file: Path | BinaryIO, where: str, sample_shape: tuple[int, int, int]) -> np.ndarray:
    """One encoded picture: float32 [C, H, W] in [-1, 1]. where: what messages call it. Raises ImageError."""
    from PIL import Image, ImageOps

    channels, height, width = sample_shape
    if channels not in (1, 3):
        raise ImageError(f"{where}: this model has {channels} channels; give its inputs as npz")
    try:
        with Image.open(file) as opened:
            picture = ImageOps.exif_transpose(opened)
            if picture.mode == "F":
                raise ImageError(f"{where}: holds floats, whose range nothing tells; give 8 or 16 bits, or an npz in [-1, 1]")
            if picture.mode.startswith("I"):  # 16-bit grey: PIL would clip it to 8 bits
                picture = Image.fromarray(np.rint(np.asarray(picture, np.float64).clip(0, 65535) / 257).astype(np.uint8))
            if picture.has_transparency_data:
                picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture.convert("RGBA"))
            picture = picture.convert("L" if channels == 1 else "RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ImageError(f"{where}: not a readable image ({error})") from error
    if picture.size != (width, height):
        picture = ImageOps.fit(picture, (width, height), Image.Resampling.BICUBIC)
    pixels = np.asarray(picture).reshape(height, width, channels)
    return from_uint8(pixels.transpose(2, 0, 1))


def _read_npz_images(path: Path, sample_shape: tuple[int, int, int]) -> ImageSet:
    arrays = read_npz(path)
    if "images" not in arrays:
        raise ImageError(f"{path}: has no array `images` (it has {', '.join(arrays) or 'none'})")
    images = images_from_array(arrays["images"], str(path))
    if images.shape[1:] != sample_shape:
        shape = list(arrays["images"].shape)
        raise ImageError(f"{path}: images has shape {shape}, expected [N, {', '.join(map(str, sample_shape))}]")
    labels = arrays.get("labels")
    if labels is not None and (labels.shape != (len(images),) or not np.issubdtype(labels.dtype, np.integer)):
        raise ImageError(f"{path}: labels must be {len(images)} integers, one per image")
    names = [f"{path.stem}[{i}]" for i in range(len(images))]
    return ImageSet(images, names, labels)
