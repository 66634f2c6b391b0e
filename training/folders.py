"""A folder of images as a data set: its sub-folders are classes, and its images get one size and one kind of colour."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from ..errors import ImageError, LabelError
from ..runtime.classes import class_names, in_order
from ..runtime.machine.resources import check_memory
from ..runtime.pictures.folders import SUFFIXES, Survey, folder_images, ignored_by_systems
from ..runtime.pictures.formats import picture_facts, read_picture
from ..runtime.wording import counted, listed
from .dataset import Dataset

Facts = tuple[bool, int]  # of an image file: whether it is grey, its shorter side in pixels


def read_folder(folder: Path, image_size: int | None, sample_shape: tuple[int, int, int] | None) -> Dataset:
    """The images of a folder without labels, or those of its sub-folders, each a class under the sub-folder's name.

    Images are cropped to squares, resized and converted to sample_shape (C, S, S). Without it they are grey or in colour as most
    of them are, and of image_size pixels, by default the shorter side that most of them have. Raises ImageError or LabelError.
    """
    survey, title = Survey(), folder.name if folder.name not in ("", "..") else folder.resolve().name
    groups = _class_folders(folder, survey)
    loose = folder_images(folder, survey)
    if any(groups.values()) and loose:
        raise LabelError(
            f"{loose[0]}: lies beside sub-folders, which are classes; move it into one, or the sub-folders away"
        )
    names = [] if loose else list(groups)
    members = [(file, label) for label, name in enumerate(names) for file in groups[name]] or [
        (file, 0) for file in loose
    ]
    if not members:
        raise ImageError(
            f"{folder}: no images in it or its sub-folders (looked for {', '.join(SUFFIXES)}){_deeper(folder)}"
        )
    facts = [picture_facts(file) for file, _ in members]
    usable = [index for index, (_, side) in enumerate(facts) if side > 1]
    if not usable:
        raise ImageError(f"{folder}: all of its images have a side of 1 pixel")
    shape = sample_shape or _common_shape([facts[index] for index in usable], image_size, folder)
    images = _read([members[index][0] for index in usable], shape, folder, survey)
    labels = torch.tensor([members[index][1] for index in usable]) if names else None
    tiny = [
        str(file.relative_to(folder))
        for (file, _), (_, side) in zip(members, facts, strict=True)
        if side == 1
    ]
    notes = (
        f"sub-folders without images are ignored: {listed(list(groups))}" if loose and groups else "",
        f"{counted(len(tiny), 'image')} with a side of 1 pixel left out: {listed(tiny)}" if tiny else "",
        survey.line(),
    )
    return Dataset(
        title, images, labels, tuple(names) or None, tuple(f"{title}: {note}" for note in notes if note)
    )


def _class_folders(folder: Path, survey: Survey) -> dict[str, list[Path]]:
    """Class name → its images, for every sub-folder that is not a system's own, in the order of the classes. Raises LabelError."""
    try:
        subs = [entry for entry in folder.iterdir() if entry.is_dir() and not ignored_by_systems(entry)]
    except OSError as error:
        raise ImageError(f"{folder}: cannot be read ({error.strerror or error})") from error
    try:
        names = dict(zip(class_names([sub.name for sub in subs]), subs, strict=True))
    except ValueError as error:
        raise LabelError(f"{folder}: its sub-folders are classes, and {error}; rename them") from error
    return {name: folder_images(names[name], survey) for name in in_order(list(names))}


def _deeper(folder: Path) -> str:
    """Where images lie in sub-folders of sub-folders, which are not read; "" if there are none."""
    for sub in folder.iterdir():
        for deeper in sub.iterdir() if sub.is_dir() and not ignored_by_systems(sub) else ():
            if deeper.is_dir() and not ignored_by_systems(deeper) and folder_images(deeper):
                return f"; there are some in {deeper}: give {sub}, or move them up by one folder"
    return ""


def _common_shape(facts: Sequence[Facts], image_size: int | None, folder: Path) -> tuple[int, int, int]:
    """(C, S, S) that most images have, grey or colour by majority. Raises ImageError where no side is that of at least half of them."""
    channels = 1 if 2 * sum(grey for grey, _ in facts) > len(facts) else 3
    if image_size is not None:
        return channels, image_size, image_size
    sides = Counter(side for _, side in facts)
    (side, count), *others = sides.most_common(2)
    if 2 * count < len(facts) or any(other == count for _, other in others):
        raise ImageError(
            f"{folder}: images of many sizes (shorter sides of {min(sides)} to {max(sides)} pixels); say the size to resize them to, "
            "such as --image-size 64"
        )
    return channels, side, side


def _read(files: Sequence[Path], shape: tuple[int, int, int], folder: Path, survey: Survey) -> torch.Tensor:
    """float32 [N, *shape]. Raises InputError, before anything is allocated, if they do not fit in memory."""
    what = f"{folder}: {len(files)} images of {'×'.join(map(str, shape))}"
    check_memory(4 * len(files) * int(np.prod(shape)), what, "give a smaller --image-size, or fewer images")
    images = np.empty((len(files), *shape), np.float32)
    for index, file in enumerate(files):
        images[index] = read_picture(file, shape, str(file), survey=survey)
    return torch.from_numpy(images)
