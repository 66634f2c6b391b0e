"""Decode image files: each becomes float32 [C, H, W] in [-1, 1].

- A picture whose pixels were repeated by a whole factor gets its own size again (enlarged.py).
- An image of another size is cropped centrally to the aspect ratio of the model, and resized bicubically
  (antialiased).
- Colour is converted to grey, and grey to colour, as the model requires.
- The EXIF orientation is applied.
- Transparent pixels are blended with white.
- Of an animation, the first frame is read.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from ...errors import ImageError
from ..pixels import from_uint8
from ..storage.files import check_regular, is_html, is_lfs_pointer
from .enlarged import without_enlargement
from .folders import Survey

if TYPE_CHECKING:
    from PIL import Image

# Formats that are read, whatever the name of the file. Pillow supports more, but some of them start other
# programs (EPS), and some are decoded by code that is rarely tested.
FORMATS = (
    "PNG",
    "JPEG",
    "MPO",
    "WEBP",
    "GIF",
    "BMP",
    "DIB",
    "TIFF",
    "PPM",
    "AVIF",
    "TGA",
    "JPEG2000",
)
# Pillow's modes
PLAIN_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA")
DEEP_MODES = ("I;16", "I;16L", "I;16B", "I;16N", "I")  # grey with 16 bits
GREY_MODES = ("1", "L", "LA")
# Numbers of TIFF tags
_BITS_PER_SAMPLE = 258
_PHOTOMETRIC = 262
_SAMPLE_FORMAT = 339
# Values of TIFF tags
_WHITE_IS_ZERO = 0
_SIGNED_INTEGERS = 2


def read_picture(
    file: Path | IO[bytes] | Image.Image,
    sample_shape: tuple[int, int, int],
    where: str,
    formats: tuple[str, ...] = FORMATS,
    survey: Survey | None = None,
) -> np.ndarray:
    """Return an image as float32 [C, H, W] in [-1, 1].

    file: the image file, its content, or an image of Pillow.
    sample_shape: (C, H, W) of the result; C is 1 or 3.
    where: the name of the image in error messages.
    formats: names of Pillow's formats that are accepted.
    survey: counts what was converted.

    Raises ImageError.
    """
    from PIL import Image, ImageOps

    channels, height, width = sample_shape
    if channels not in (1, 3):
        raise ImageError(f"{where}: this model has {channels} channels; give its inputs as npz")
    picture = without_enlargement(open_picture(file, where, formats, survey), (width, height))
    if survey is not None:
        grey = picture.mode in GREY_MODES
        survey.images += 1
        survey.size = (width, height)
        survey.to_colour += grey and channels == 3
        survey.to_grey += not grey and channels == 1
        survey.resized += picture.size != (width, height)
    if picture.has_transparency_data:
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture.convert("RGBA"))
    picture = picture.convert("L" if channels == 1 else "RGB")
    if picture.size != (width, height):
        picture = ImageOps.fit(picture, (width, height), Image.Resampling.BICUBIC)
    pixels = np.asarray(picture).reshape(height, width, channels)
    return from_uint8(pixels.transpose(2, 0, 1))


def open_picture(
    file: Path | IO[bytes] | Image.Image,
    where: str,
    formats: tuple[str, ...] = FORMATS,
    survey: Survey | None = None,
) -> Image.Image:
    """Return a decoded image, upright, with 8 bits per channel. Arguments as for `read_picture`.

    Grey with up to 16 bits is scaled to 8 bits. Transparency is kept. An enlarged picture of this package has
    the size that it had before. Raises ImageError.
    """
    if isinstance(file, Path):
        check_regular(file)
    try:
        picture, format_name, tags = _decode(file, formats, survey)
    except MemoryError:
        raise
    except Exception as error:  # decoders raise many kinds of errors for damaged files
        raise _unreadable(file, where, error) from error
    if not all(picture.size):
        raise ImageError(f"{where}: has no pixels ({picture.width}×{picture.height})")
    if picture.mode == "F":
        raise ImageError(
            f"{where}: contains floats, whose range is unknown; "
            "save it with 8 or 16 bits, or as npz in [-1, 1]"
        )
    is_tiff = format_name == "TIFF"
    is_signed = is_tiff and _SIGNED_INTEGERS in _values(tags, _SAMPLE_FORMAT)
    has_32_bits = picture.mode == "I" and format_name not in ("PNG", "PPM")
    if is_signed or has_32_bits:
        raise ImageError(
            f"{where}: contains 32-bit or signed integers, whose range is unknown; "
            "save it with 8 or 16 bits, unsigned"
        )
    if picture.mode not in DEEP_MODES:
        return without_enlargement(picture)
    bits = max(_values(tags, _BITS_PER_SAMPLE), default=16) if is_tiff else 16
    white_is_zero = is_tiff and _WHITE_IS_ZERO in _values(tags, _PHOTOMETRIC)
    return _with_8_bits(picture, 2**bits - 1, white_is_zero)


def read_text(file: Path) -> tuple[tuple[int, int], dict[Any, Any]]:
    """Return the width and height of an image, and the texts before its pixels. Only the header is read.

    Raises ImageError.
    """
    from PIL import Image

    check_regular(file)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(file, formats=_available(FORMATS)) as opened:
                return opened.size, dict(opened.info)
    except MemoryError:
        raise
    except Exception as error:  # decoders raise many kinds of errors for damaged files
        raise _unreadable(file, str(file), error) from error


def picture_facts(file: Path) -> tuple[bool, int]:
    """Return (whether an image is grey, its shorter side in pixels). Only the header is read.

    Raises ImageError.
    """
    from PIL import Image

    check_regular(file)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(file, formats=_available(FORMATS)) as opened:
                return opened.mode in (*GREY_MODES, *DEEP_MODES), min(opened.size)
    except MemoryError:
        raise
    except Exception as error:  # decoders raise many kinds of errors for damaged files
        raise _unreadable(file, str(file), error) from error


def _decode(
    file: Path | IO[bytes] | Image.Image, formats: tuple[str, ...], survey: Survey | None
) -> tuple[Image.Image, str | None, Mapping[int, Any]]:
    """Return the upright first frame of an image, the name of its format, and the tags of a TIFF file.

    Of an image of Pillow, the current frame is returned.
    """
    from PIL import Image

    with warnings.catch_warnings():
        # Pillow warns of large and of slightly damaged images. It raises an error if an image is unreadable.
        warnings.simplefilter("ignore")
        if isinstance(file, Image.Image):
            return _upright(file), file.format, getattr(file, "tag_v2", {})
        with Image.open(file, formats=_available(formats)) as opened:
            # The other frames of an MPO file are not an animation, but other views or depth maps.
            if survey is not None and opened.format != "MPO":
                survey.animations += bool(getattr(opened, "is_animated", False))
            opened.seek(0)
            opened.load()
            format_name, tags = opened.format, getattr(opened, "tag_v2", {})
            picture = _upright(opened)
    return picture, format_name, tags


def _upright(picture: Image.Image) -> Image.Image:
    """Return an image after its EXIF orientation, in one of the modes of this module."""
    from PIL import ImageOps

    upright = ImageOps.exif_transpose(picture)
    is_known = upright.mode in (*PLAIN_MODES, *DEEP_MODES, "F")  # CMYK, for example, is not
    return upright if is_known else upright.convert("RGB")


def _values(tags: Mapping[int, Any], number: int) -> tuple[int, ...]:
    """Return the values of a TIFF tag, or () if the file does not have it."""
    value = tags.get(number, ())
    return value if isinstance(value, tuple) else (value,)


def _with_8_bits(picture: Image.Image, largest: int, white_is_zero: bool) -> Image.Image:
    """Return a grey image of 9 to 16 bits with 8 bits, with an alpha channel if it has transparent pixels.

    largest: the value of the brightest pixel.
    """
    from PIL import Image

    values = np.asarray(picture)
    levels = np.rint(values.astype(np.float64).clip(0, largest) * (255 / largest)).astype(np.uint8)
    grey = Image.fromarray(255 - levels if white_is_zero else levels)
    transparent_value = picture.info.get("transparency")
    if not isinstance(transparent_value, int):
        return grey
    grey.putalpha(Image.fromarray(np.where(values == transparent_value, 0, 255).astype(np.uint8)))
    return grey


def _available(formats: tuple[str, ...]) -> tuple[str, ...]:
    """Return the formats that the installed Pillow was built with."""
    from PIL import Image

    Image.init()
    return tuple(name for name in formats if name in Image.OPEN)


def _unreadable(file: Path | IO[bytes] | Image.Image, where: str, error: Exception) -> ImageError:
    from PIL import Image

    if isinstance(error, Image.DecompressionBombError):
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        return ImageError(f"{where}: larger than {limit / 1e6:.0f} megapixels; make it smaller")
    text = str(error) or type(error).__name__
    if "truncated" in text.lower():
        return ImageError(f"{where}: not a readable image (it ends too early); download or copy it again")
    if not isinstance(file, Path):  # Pillow's message would contain the memory address of an object
        return ImageError(f"{where}: not a readable image; convert it to PNG or JPEG")
    with file.open("rb") as opened:
        head = opened.read(64)
    if is_lfs_pointer(head):
        return ImageError(f"{where}: a Git LFS pointer, not the image; get the images with: git lfs pull")
    if is_html(head):
        return ImageError(f"{where}: an HTML page, not the image; download the image again")
    if not head:
        reason = "it is empty"
    elif "cannot identify" in text:
        reason = "its format is not supported"
    else:
        reason = text
    return ImageError(f"{where}: not a readable image ({reason}); convert it to PNG or JPEG")
