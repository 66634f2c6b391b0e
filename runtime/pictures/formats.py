"""Image files and folders of them: which files are images, and how each becomes float32 [C, H, W] in [-1, 1].

An image of another size is cropped centrally to the model's aspect ratio and resized bicubically (antialiased); colour and
grey convert; EXIF rotation is honoured; transparency is laid over white; of an animation the first frame counts.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from ...errors import ImageError
from ..pixels import from_uint8
from ..storage.files import check_regular, is_folder, is_html, is_lfs_pointer
from ..wording import counted

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = (  # in a folder, files with these names are images
    *(".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".dib", ".webp", ".gif", ".tif", ".tiff"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".avif", ".tga", ".jp2"),
)
FORMATS = (  # by content; Pillow knows others, of which some start programs (EPS) or are read by code that few test
    *("PNG", "JPEG", "MPO", "WEBP", "GIF", "BMP", "DIB", "TIFF", "PPM", "AVIF", "TGA", "JPEG2000"),
)
INDEX = "images.csv"  # in a folder of images that was written here: file, seed and label of each
SYSTEM_FILES = ("thumbs.db", "desktop.ini", "icon\r")
SYSTEM_FOLDERS = (
    *("__macosx", "$recycle.bin", "recycler", "system volume information", "lost+found", "__pycache__"),
    *("@eadir", "@recycle", "@recently-snapshot", "@sharebin", "@tmp", "#recycle", "#snapshot", "~snapshot"),
    *("network trash folder", "temporary items"),
)
PLAIN_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA")
_BITS_PER_SAMPLE, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339  # TIFF tags
DEEP_MODES = ("I;16", "I;16L", "I;16B", "I;16N", "I")  # grey of 16 bits


def ignored_by_systems(path: Path) -> bool:
    """Whether a file or folder is hidden or what operating systems, editors and NAS devices leave behind (@eaDir, Thumbs.db)."""
    return path.name.startswith((".", "~$")) or path.name.lower() in (*SYSTEM_FILES, *SYSTEM_FOLDERS)


@dataclass
class Survey:
    """What was read of files and folders, and what was changed or left out. `line` is one line for people, or "".

    skipped: suffix → number of files in folders that are not images.
    """

    images: int = 0
    to_colour: int = 0
    to_grey: int = 0
    resized: int = 0
    animations: int = 0
    size: tuple[int, int] = (0, 0)  # (width, height) of the result
    skipped: Counter[str] = field(default_factory=Counter)

    def line(self) -> str:
        """Such as "6 images: 1 converted from grey to colour; skipped 1 file that is not an image (1 .txt)"."""
        changes = (
            (self.to_colour, "converted from grey to colour"),
            (self.to_grey, "converted from colour to grey"),
            (self.resized, f"cropped or resized to {self.size[0]}×{self.size[1]}"),
            (
                self.animations,
                "read as the first frame of an animation"
                if self.animations == 1
                else "read as first frames of animations",
            ),
        )
        words = [f"{count} {what}" for count, what in changes if count]
        parts = [f"{counted(self.images, 'image')}: {', '.join(words)}"] if words else []
        if total := self.skipped.total():
            kinds = ", ".join(
                f"{count} {suffix or 'without a suffix'}" for suffix, count in self.skipped.most_common()
            )
            parts.append(
                f"skipped {counted(total, 'file')} that {'is not an image' if total == 1 else 'are not images'} ({kinds})"
            )
        return "; ".join(parts)


def image_files(path: Path, survey: Survey | None = None) -> list[Path]:
    """The file itself, or a folder's images in the order of their names; counts in `survey` what is not an image. Raises ImageError."""
    if not is_folder(path):
        return [path]
    files = folder_images(path, survey)
    if not files:
        inside = "; its sub-folders are not read" if any(entry.is_dir() for entry in path.iterdir()) else ""
        raise ImageError(f"{path}: no images in this folder (looked for {', '.join(SUFFIXES)}){inside}")
    return files


def folder_images(folder: Path, survey: Survey | None = None) -> list[Path]:
    """A folder's images in the order of their names, none if it has none. Raises ImageError for a folder that cannot be read."""
    try:
        entries = sorted(
            entry for entry in folder.iterdir() if not entry.is_dir() and not ignored_by_systems(entry)
        )
    except OSError as error:
        raise ImageError(f"{folder}: cannot be read ({error.strerror or error})") from error
    if survey is not None:
        others = (entry for entry in entries if entry.suffix.lower() not in SUFFIXES and entry.name != INDEX)
        survey.skipped.update(other.suffix.lower() for other in others)
    return [entry for entry in entries if entry.suffix.lower() in SUFFIXES]


def read_picture(
    file: Path | IO[bytes],
    sample_shape: tuple[int, int, int],
    where: str,
    formats: tuple[str, ...] = FORMATS,
    survey: Survey | None = None,
) -> np.ndarray:
    """float32 [C, H, W] in [-1, 1] from an image file, or from one in memory, of one of Pillow's formats. Raises ImageError.

    where: what messages call it. survey: counts what was converted.
    """
    from PIL import Image, ImageOps

    channels, height, width = sample_shape
    if channels not in (1, 3):
        raise ImageError(f"{where}: this model has {channels} channels; give its inputs as npz")
    picture = open_picture(file, where, formats, survey)
    if survey is not None:
        grey = picture.mode in ("1", "L", "LA")
        survey.images += 1
        survey.size = (width, height)
        survey.to_colour += grey and channels == 3
        survey.to_grey += not grey and channels == 1
        survey.resized += picture.size != (width, height)
    if picture.has_transparency_data:
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture.convert("RGBA"))
    picture = picture.convert("L" if channels == 1 else "RGB")
    if picture.size != (width, height):
        picture = ImageOps.fit(picture, (width, height), Image.Resampling.BICUBIC)
    pixels = np.asarray(picture).reshape(height, width, channels)
    return from_uint8(pixels.transpose(2, 0, 1))


def open_picture(
    file: Path | IO[bytes], where: str, formats: tuple[str, ...] = FORMATS, survey: Survey | None = None
) -> Image.Image:
    """A decoded image of 8 bits a channel, upright; grey of 16 bits is scaled, its transparency kept. Raises ImageError."""
    from PIL import Image, ImageOps

    if isinstance(file, Path):
        check_regular(file)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # of large and of slightly damaged files; what cannot be read raises
            with Image.open(file, formats=_available(formats)) as opened:
                if (
                    survey is not None and opened.format != "MPO"
                ):  # whose other frames are views and depth maps
                    survey.animations += bool(getattr(opened, "is_animated", False))
                opened.seek(0)
                opened.load()
                kind, tags = opened.format, getattr(opened, "tag_v2", {})  # tags: of TIFF
                picture = ImageOps.exif_transpose(opened)
                if picture.mode not in (*PLAIN_MODES, *DEEP_MODES, "F"):  # such as CMYK
                    picture = picture.convert("RGB")
    except MemoryError:
        raise
    except Exception as error:  # whatever a decoder raises on damaged bytes
        raise _unreadable(file, where, error) from error
    if picture.mode == "F":
        raise ImageError(
            f"{where}: holds floats, whose range is unknown; save it with 8 or 16 bits, or as npz in [-1, 1]"
        )
    signed = kind == "TIFF" and 2 in _values(tags, _SAMPLE_FORMAT)
    if signed or (picture.mode == "I" and kind not in ("PNG", "PPM")):  # which have 16 bits
        raise ImageError(
            f"{where}: holds 32-bit or signed integers, whose range is unknown; save it with 8 or 16 bits, unsigned"
        )
    if picture.mode not in DEEP_MODES:
        return picture
    bits = max(_values(tags, _BITS_PER_SAMPLE), default=16) if kind == "TIFF" else 16
    return _with_8_bits(picture, 2**bits - 1, kind == "TIFF" and 0 in _values(tags, _PHOTOMETRIC))


def picture_facts(file: Path) -> tuple[bool, int]:
    """(whether it is grey, its shorter side in pixels) of an image file, from its header alone. Raises ImageError."""
    from PIL import Image

    check_regular(file)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(file, formats=_available(FORMATS)) as opened:
                return opened.mode in ("1", "L", "LA", *DEEP_MODES), min(opened.size)
    except MemoryError:
        raise
    except Exception as error:  # as above
        raise _unreadable(file, str(file), error) from error


def _values(tags: Mapping[int, Any], number: int) -> tuple[int, ...]:
    """The values of a TIFF tag, none if the file has none."""
    value = tags.get(number, ())
    return value if isinstance(value, tuple) else (value,)


def _with_8_bits(picture: Image.Image, most: int, white_is_zero: bool) -> Image.Image:
    """Grey of 9 to 16 bits as grey of 8, with an alpha channel if one value stands for transparent. most: the largest value."""
    from PIL import Image

    values = np.asarray(picture)
    levels = np.rint(values.astype(np.float64).clip(0, most) * (255 / most)).astype(np.uint8)
    grey = Image.fromarray(255 - levels if white_is_zero else levels)
    transparent = picture.info.get("transparency")
    if not isinstance(transparent, int):
        return grey
    grey.putalpha(Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8)))
    return grey


def _available(formats: tuple[str, ...]) -> tuple[str, ...]:
    """Those of Pillow's formats that this build has."""
    from PIL import Image

    Image.init()
    return tuple(name for name in formats if name in Image.OPEN)


def _unreadable(file: Path | IO[bytes], where: str, error: Exception) -> ImageError:
    from PIL import Image

    if isinstance(error, Image.DecompressionBombError):
        return ImageError(
            f"{where}: larger than {2 * (Image.MAX_IMAGE_PIXELS or 0) / 1e6:.0f} megapixels; make it smaller"
        )
    text = str(error) or type(error).__name__
    if "truncated" in text.lower():
        return ImageError(f"{where}: not a readable image (it ends too early); download or copy it again")
    if not isinstance(file, Path):  # Pillow's text would have an address
        return ImageError(f"{where}: not a readable image; convert it to PNG or JPEG")
    with file.open("rb") as opened:
        head = opened.read(64)
    if is_lfs_pointer(head):
        return ImageError(
            f"{where}: a Git LFS pointer in place of the image; get the images with: git lfs pull"
        )
    if is_html(head):
        return ImageError(f"{where}: an HTML page in place of the image; download the image again")
    reason = "its content is not of a format that can be read" if "cannot identify" in text else text
    return ImageError(
        f"{where}: not a readable image ({'it is empty' if not head else reason}); convert it to PNG or JPEG"
    )
