"""Find the images in a folder, and count the files that were converted or left out while reading them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from ...errors import ImageError, LabelError
from ..classes import class_names, in_order
from ..storage.files import is_folder
from ..wording import counted, listed

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
    # Sub-folders that were not read, because images lie beside them.
    unread: list[str] = field(default_factory=list)
    # The sub-folders whose names are the labels of their images.
    class_names: list[str] = field(default_factory=list)

    def line(self) -> str:
        """Return one line for people, or "" if nothing was converted or left out.

        For example "6 images: 1 converted from grey to colour; skipped 1 file that is not an image (1 .txt)".
        """
        unread = f"sub-folders beside images are not read: {listed(self.unread)}" if self.unread else ""
        classes = (
            f"labels from the names of sub-folders: {listed(self.class_names)}" if self.class_names else ""
        )
        return "; ".join(part for part in (self._conversions(), self._skipped(), unread, classes) if part)

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


@dataclass(frozen=True)
class FolderImages:
    """The images of a folder, or of its sub-folders, which are classes."""

    files: list[Path]
    # The name of the sub-folder of each file; None if the images lie in the folder itself.
    classes: list[str] | None


def find_images(path: Path, survey: Survey | None = None) -> FolderImages:
    """Return the path itself if it is a file, else the images of a folder, sorted by name.

    A folder without images of its own has classes: the images of its sub-folders, in the order of the
    classes. Sub-folders beside images are not read, and are listed in the survey.

    survey: counts what was left out. Raises ImageError for a folder without images.
    """
    if not is_folder(path):
        return FolderImages([path], None)
    if files := folder_images(path, survey):
        if survey is not None:
            survey.unread += [str(sub) for sub in sub_folders(path)]
        return FolderImages(files, None)
    groups = class_folders(path, survey)
    if not any(groups.values()):
        raise ImageError(
            f"{path}: no images in this folder or its sub-folders (looked for {', '.join(SUFFIXES)})"
            f"{deeper_images(path)}"
        )
    pairs = [(file, name) for name, images in groups.items() for file in images]
    return FolderImages([file for file, _ in pairs], [name for _, name in pairs])


def class_folders(folder: Path, survey: Survey | None = None) -> dict[str, list[Path]]:
    """Return class name → images for every sub-folder, in the order of the classes.

    survey: counts the other files. Raises LabelError for sub-folders that cannot be classes, ImageError for
    a folder that cannot be read.
    """
    subs = sub_folders(folder)
    try:
        folders = dict(zip(class_names([sub.name for sub in subs]), subs, strict=True))
    except ValueError as error:
        raise LabelError(f"{folder}: its sub-folders are classes, and {error}; rename them") from error
    return {name: folder_images(folders[name], survey) for name in in_order(list(folders))}


def sub_folders(folder: Path) -> list[Path]:
    """Return the sub-folders of a folder, sorted by name, without those of operating systems.

    Raises ImageError for a folder that cannot be read.
    """
    try:
        return sorted(entry for entry in folder.iterdir() if entry.is_dir() and not ignored_by_systems(entry))
    except OSError as error:
        raise ImageError(f"{folder}: cannot be read ({error.strerror or error})") from error


def deeper_images(folder: Path) -> str:
    """Return where sub-folders of sub-folders contain images, which are not read; "" if none do."""
    for sub in sub_folders(folder):
        for deeper in sub_folders(sub):
            if folder_images(deeper):
                return f"; there are some in {deeper}: give {sub}, or move them up by one folder"
    return ""


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
