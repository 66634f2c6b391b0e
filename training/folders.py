"""Read a folder of images as a data set, with sub-folders as classes, in one size and one colour mode."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ..errors import ImageError, LabelError
from ..runtime.machine.resources import check_memory
from ..runtime.pictures.folders import SUFFIXES, Survey, class_folders, deeper_images, folder_images
from ..runtime.pictures.formats import picture_facts, read_picture
from ..runtime.wording import counted, listed
from .dataset import Dataset


@dataclass(frozen=True)
class _Image:
    """An image file of the data set."""

    file: Path
    # The number of its class; 0 if there are no classes.
    label: int
    grey: bool
    # The shorter side, in pixels.
    side: int


def read_folder(folder: Path, image_size: int | None, sample_shape: tuple[int, int, int] | None) -> Dataset:
    """Read the images of a folder without labels, or of its sub-folders, whose names are the classes.

    The images are cropped to squares, resized and converted to sample_shape (C, S, S). If it is None, they
    become grey or coloured like most of them, and get image_size pixels a side, by default the shorter side
    that most of them have. Raises ImageError or LabelError.
    """
    title = folder.name if folder.name not in ("", "..") else folder.resolve().name
    survey = Survey()
    groups = class_folders(folder, survey)
    loose = folder_images(folder, survey)
    if any(groups.values()) and loose:
        raise LabelError(
            f"{loose[0]}: lies beside sub-folders, which are classes; move it into one of them, "
            "or move the sub-folders away"
        )
    names = [] if loose else list(groups)
    images = _images([loose] if loose else list(groups.values()))
    if not images:
        suffixes = ", ".join(SUFFIXES)
        raise ImageError(
            f"{folder}: no images in it or its sub-folders (looked for {suffixes}){deeper_images(folder)}"
        )
    usable = [image for image in images if image.side > 1]
    if not usable:
        raise ImageError(f"{folder}: all of its images have a side of 1 pixel")
    shape = sample_shape or _common_shape(usable, image_size, folder)
    pixels = _read([image.file for image in usable], shape, folder, survey)
    labels = torch.tensor([image.label for image in usable]) if names else None
    notes = []
    if loose and groups:
        notes.append(f"sub-folders without images are ignored: {listed(list(groups))}")
    if tiny := [str(image.file.relative_to(folder)) for image in images if image.side == 1]:
        notes.append(f"{counted(len(tiny), 'image')} with a side of 1 pixel left out: {listed(tiny)}")
    if conversions := survey.line():
        notes.append(conversions)
    return Dataset(title, pixels, labels, tuple(names) or None, tuple(f"{title}: {note}" for note in notes))


def _images(groups: Sequence[Sequence[Path]]) -> list[_Image]:
    """Read the headers of the images of each class."""
    images = []
    for label, files in enumerate(groups):
        for file in files:
            grey, side = picture_facts(file)
            images.append(_Image(file, label, grey, side))
    return images


def _common_shape(images: Sequence[_Image], image_size: int | None, folder: Path) -> tuple[int, int, int]:
    """Return the (C, S, S) that most images have; C is 1 if more than half of them are grey, otherwise 3.

    Raises ImageError if no side is that of at least half of them.
    """
    channels = 1 if 2 * sum(image.grey for image in images) > len(images) else 3
    if image_size is not None:
        return channels, image_size, image_size
    sides = Counter(image.side for image in images)
    (side, count), *others = sides.most_common(2)
    if 2 * count < len(images) or any(other == count for _, other in others):
        raise ImageError(
            f"{folder}: images of many sizes (shorter sides of {min(sides)} to {max(sides)} pixels); "
            "give the size to resize them to, for example --image-size 64"
        )
    return channels, side, side


def _read(files: Sequence[Path], shape: tuple[int, int, int], folder: Path, survey: Survey) -> torch.Tensor:
    """Return images as float32 [N, *shape].

    Raises InputError, before memory is allocated, if they do not fit into memory.
    """
    subject = f"{folder}: {len(files)} images of {'×'.join(map(str, shape))}"
    size = 4 * len(files) * int(np.prod(shape))
    check_memory(size, subject, "give a smaller --image-size, or fewer images")
    images = np.empty((len(files), *shape), np.float32)
    for index, file in enumerate(files):
        images[index] = read_picture(file, shape, str(file), survey=survey)
    return torch.from_numpy(images)
