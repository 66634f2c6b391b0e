"""Find the images in a folder, and count the files that were converted or left out while reading them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from ...errors import ImageError
from ..storage.files import is_folder
from ..wording import counted

# Files of a folder are images if their names end in one of these, in upper or lower case.
SUFFIXES = (
    ".png",
    ".apng",
    ".jpg",
    ".jpeg",
    ".jpe",
    ".jfif",
    ".bmp",
    ".dib",
    ".webp",
    ".gif",
    ".tif",
    ".tiff",
    ".ppm",
    ".pgm",
    ".pbm",
    ".pnm",
    ".avif",
    ".tga",
    ".jp2",
)
INDEX = "images.csv"  # a folder of images that this package wrote lists the seed and label of each file here

# What operating systems and NAS devices leave in folders, in lower case.
_SYSTEM_FILES = ("thumbs.db", "desktop.ini", "icon\r")
_SYSTEM_FOLDERS = (
    "__macosx",
    "$recycle.bin",
    "recycler",
    "system volume information",
    "lost+found",
    "__pycache__",
    "@eadir",
    "@recycle",
    "@recently-snapshot",
    "@sharebin",
    "@tmp",
    "#recycle",
    "#snapshot",
    "~snapshot",
    "network trash folder",
    "temporary items",
)


def ignored_by_systems(path: Path) -> bool:
    """Return whether a file or folder is hidden or left by an operating system, an editor or a NAS device."""
    return path.name.startswith((".", "~$")) or path.name.lower() in (*_SYSTEM_FILES, *_SYSTEM_FOLDERS)


@dataclass
class Survey:
    """Counts of images that were read, converted or left out."""

    # Images that were read.
    images: int = 0
    # Images that were converted from grey to colour.
    to_colour: int = 0
    # Images that were converted from colour to grey.
    to_grey: int = 0
    # Images that were cropped or resized.
    resized: int = 0
    # Animations, of which the first frame was read.
    animations: int = 0
    # (width, height) of the results, in pixels.
    size: tuple[int, int] = (0, 0)
    # Suffix → number of files in folders that are not images.
    skipped: Counter[str] = field(default_factory=Counter)

    def line(self) -> str:
        """Return one line for people, or "" if nothing was converted or left out.

        For example "6 images: 1 converted from grey to colour; skipped 1 file that is not an image (1 .txt)".
        """
        return "; ".join(part for part in (self._conversions(), self._skipped()) if part)

    def _conversions(self) -> str:
        width, height = self.size
        if self.animations == 1:
            first_frames = "the first frame of an animation"
        else:
            first_frames = "first frames of animations"
        changes = {
            "converted from grey to colour": self.to_colour,
            "converted from colour to grey": self.to_grey,
            f"cropped or resized to {width}×{height}": self.resized,
            f"read as {first_frames}": self.animations,
        }
        texts = [f"{count} {change}" for change, count in changes.items() if count]
        return f"{counted(self.images, 'image')}: {', '.join(texts)}" if texts else ""

    def _skipped(self) -> str:
        total = self.skipped.total()
        if not total:
            return ""
        kinds = [f"{count} {suffix or 'without a suffix'}" for suffix, count in self.skipped.most_common()]
        are_not_images = "is not an image" if total == 1 else "are not images"
        return f"skipped {counted(total, 'file')} that {are_not_images} ({', '.join(kinds)})"


def image_files(path: Path, survey: Survey | None = None) -> list[Path]:
    """Return the path itself if it is a file, or the images of a folder, sorted by name.

    survey: counts the other files of the folder. Raises ImageError for a folder without images.
    """
    if not is_folder(path):
        return [path]
    files = folder_images(path, survey)
    if not files:
        has_folders = any(entry.is_dir() for entry in path.iterdir())
        advice = "; its sub-folders are not read" if has_folders else ""
        raise ImageError(f"{path}: no images in this folder (looked for {', '.join(SUFFIXES)}){advice}")
    return files


def folder_images(folder: Path, survey: Survey | None = None) -> list[Path]:
    """Return the images of a folder, sorted by name; an empty list if it has none.

    survey: counts the other files of the folder. Raises ImageError for a folder that cannot be read.
    """
    try:
        files = [entry for entry in folder.iterdir() if not entry.is_dir() and not ignored_by_systems(entry)]
    except OSError as error:
        raise ImageError(f"{folder}: cannot be read ({error.strerror or error})") from error
    images = []
    for file in sorted(files):
        if file.suffix.lower() in SUFFIXES:
            images.append(file)
        elif survey is not None and file.name != INDEX:
            survey.skipped[file.suffix.lower()] += 1
    return images
