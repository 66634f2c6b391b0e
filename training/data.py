"""Data sets to train on and to measure with: scikit-learn's digits, a folder of images, or an npz file."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..errors import ImageError, LabelError
from ..runtime.images import SUFFIXES, images_from_array, read_images, read_npz

SPLIT_SEED = 2024  # of the digits' split; every number reported for them depends on it


@dataclass(frozen=True)
class Dataset:
    """images: float32 [N, C, S, S] in [-1, 1]; labels: int64 [N] in [0, num_classes), or None for data without classes; classes: their
    names, where the data has names."""

    name: str
    images: Tensor
    labels: Tensor | None
    classes: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        _, _, height, width = self.images.shape
        if height != width:
            raise ImageError(f"{self.name}: images of {width}×{height} pixels; the network takes square ones")
        if self.labels is None:
            return
        if self.labels.shape != (len(self.images),):
            raise LabelError(f"{self.name}: {len(self.images)} images need that many labels, not {' × '.join(map(str, self.labels.shape))}")
        low, high = int(self.labels.min()), int(self.labels.max())
        if low < 0 or high >= len(self.images):
            raise LabelError(f"{self.name}: labels count classes from 0, fewer than there are images; these go from {low} to {high}")

    @property
    def num_classes(self) -> int | None:
        return None if self.labels is None else int(self.labels.max()) + 1

    @property
    def digest(self) -> str:
        """sha256 of the images and labels: which data a model was trained on."""
        return digest([self.images] if self.labels is None else [self.images, self.labels])

    def __len__(self) -> int:
        return len(self.images)


def digest(tensors: Iterable[Tensor]) -> str:
    """sha256 of the values, one tensor after the other."""
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(tensor.contiguous().numpy().tobytes())
    return found.hexdigest()


def load_dataset(source: str, image_size: int | None = None, channels: int | None = None) -> Dataset:
    """ "digits" (their training part), a folder of images, or an npz file. Raises ImageError or LabelError.

    A folder's images are cropped to squares and resized to image_size, by default to the shorter side of the first one; channels: 1 for
    grey, 3 for colour, by default as in the first one.
    """
    path = Path(source)
    if source == "digits":
        dataset = load_digits("train")
    elif path.is_dir():
        dataset = _from_folder(path, image_size, channels)
    elif path.suffix == ".npz":
        dataset = _from_npz(path)
    else:
        raise ImageError(f"data {source!r}: give digits, a folder of images, or an .npz file")
    if image_size not in (None, dataset.images.shape[2]):
        raise ImageError(f"{dataset.name}: {dataset.images.shape[2]} pixels wide, not {image_size}; only a folder's images are resized")
    return dataset


def load_digits(part: str) -> Dataset:
    """scikit-learn's 1797 digits, 8×8 grey, 10 classes, split once with a fixed seed and equal shares of every class.

    part: "train", 1257 images to fit on; "validation", 180 to choose settings on; "test", 360 to report on.
    """
    # imported here: an optional extra, and one that takes a second
    from sklearn.datasets import load_digits as fetch
    from sklearn.model_selection import train_test_split

    pixels, target = fetch(return_X_y=True)
    rest, test = train_test_split(np.arange(len(target)), test_size=360, stratify=target, random_state=SPLIT_SEED)
    train, validation = train_test_split(rest, test_size=180, stratify=target[rest], random_state=SPLIT_SEED)
    chosen = {"train": train, "validation": validation, "test": test}[part]
    images = torch.from_numpy(pixels[chosen] / 8 - 1).float().reshape(-1, 1, 8, 8)  # the file has 0 … 16
    return Dataset(f"digits ({part})", images, torch.from_numpy(target[chosen]).long())


def _from_folder(folder: Path, image_size: int | None, channels: int | None) -> Dataset:
    """Images in sub-folders have their sub-folder's rank by name as label; images in the folder itself have none."""
    groups = {sub: files for sub in sorted(folder.iterdir()) if sub.is_dir() and (files := _image_files(sub))}
    stray = _image_files(folder)
    if groups and stray:
        raise LabelError(f"{stray[0]}: lies beside sub-folders, which are classes; move it into one, or the sub-folders away")
    files = [file for group in groups.values() for file in group] or stray
    if not files:
        raise ImageError(f"{folder}: no images in it or its sub-folders (looked for {', '.join(SUFFIXES)})")
    images = torch.from_numpy(read_images(files, _sample_shape(files[0], image_size, channels)).images)
    labels = torch.tensor([label for label, group in enumerate(groups.values()) for _ in group]) if groups else None
    return Dataset(folder.name, images, labels, tuple(sub.name for sub in groups) or None)


def _image_files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if file.is_file() and file.suffix.lower() in SUFFIXES)


def _sample_shape(file: Path, image_size: int | None, channels: int | None) -> tuple[int, int, int]:
    """(C, S, S): grey or colour as in this file, S its shorter side, unless given."""
    try:
        with Image.open(file) as picture:
            size = image_size or min(picture.size)
            return channels or (1 if picture.mode[0] in "1LI" else 3), size, size
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ImageError(f"{file}: not a readable image ({error})") from error


def _from_npz(path: Path) -> Dataset:
    """`images` as images_from_array takes them; `labels`: integers [N], optional."""
    arrays = read_npz(path)
    if "images" not in arrays:
        raise ImageError(f"{path}: no array `images` in it (it has {', '.join(arrays) or 'none'})")
    labels = arrays.get("labels")
    if labels is not None and not np.issubdtype(labels.dtype, np.integer):
        raise LabelError(f"{path}: labels must be integers, not {labels.dtype}")
    return Dataset(
        path.name,
        torch.from_numpy(images_from_array(arrays["images"], str(path))),
        None if labels is None else torch.from_numpy(labels.astype(np.int64)),
    )
