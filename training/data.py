"""Data sets to train on and to measure with: scikit-learn's digits, a folder of images, or an npz or npy file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from ..errors import ImageError, InputError, LabelError
from ..runtime.classes import labels_in
from ..runtime.machine.resources import check_memory
from ..runtime.pictures.images import images_from_array
from ..runtime.pixels import ValueRange
from ..runtime.storage.arrays import is_array_file, read_arrays
from ..runtime.storage.manifest import ModelFacts
from .dataset import Dataset, without_images
from .folders import read_folder
from .matching import matched

SPLIT_SEED = 2024  # of the digits' split; every number reported for them depends on it


def load_dataset(
    source: str,
    image_size: int | None = None,
    model: ModelFacts | None = None,
    value_range: ValueRange = None,
) -> Dataset:
    """ "digits" (their training part), a folder of images, or an npz or npy file. Raises ImageError, LabelError or InputError.

    A folder's images are cropped to squares and resized to image_size, and grey or in colour as most of them are. model: what the data
    is for; it decides size and colour of a folder's images, and labels become its numbers (see `matched`). value_range: of float
    images in files of arrays (see `in_signed_range`).
    """
    path = Path(source)
    if model is not None and image_size not in (None, model.sample_shape[1]):
        raise InputError(f"the model takes images of {model.sample_shape[1]} pixels, not {image_size}")
    if source == "digits":
        dataset = load_digits("train")
    elif path.is_dir():
        dataset = read_folder(path, image_size, None if model is None else model.sample_shape)
    elif is_array_file(path):
        dataset = _from_arrays(path, model, value_range)
    else:
        problem = f"{source} is not a data set" if path.exists() else f"there is no file or folder {source}"
        raise ImageError(f"{problem}; give digits, a folder of images, or an .npz file")
    if image_size not in (None, dataset.images.shape[2]):
        raise ImageError(
            f"{dataset.name}: {dataset.images.shape[2]} pixels wide, not {image_size}; only a folder's images are resized"
        )
    if model is not None:
        dataset = matched(dataset, model)
    empty = without_images(dataset, None if model is None else model.num_classes)
    return dataset.noted(f"{dataset.name}: no images of these classes: {empty}") if empty else dataset


def load_digits(part: str) -> Dataset:
    """scikit-learn's 1797 digits, 8×8 grey, 10 classes, split once with a fixed seed and equal shares of every class.

    part: "train", 1257 images to fit on; "validation", 180 to choose settings on; "test", 360 to report on.
    """
    # imported here: an optional extra, and one that takes a second
    from sklearn.datasets import load_digits as fetch
    from sklearn.model_selection import train_test_split

    pixels, target = fetch(return_X_y=True)
    rest, test = train_test_split(
        np.arange(len(target)), test_size=360, stratify=target, random_state=SPLIT_SEED
    )
    train, validation = train_test_split(rest, test_size=180, stratify=target[rest], random_state=SPLIT_SEED)
    chosen = {"train": train, "validation": validation, "test": test}[part]
    images = torch.from_numpy(pixels[chosen] / 8 - 1).float().reshape(-1, 1, 8, 8)  # the file has 0 … 16
    return Dataset(f"digits ({part})", images, torch.from_numpy(target[chosen]).long())


def _from_arrays(path: Path, model: ModelFacts | None, value_range: ValueRange) -> Dataset:
    """`images` as images_from_array takes them. Optional: `labels`, integers or names [N]; `classes`, the names of all classes."""
    arrays = read_arrays(path, "images")
    if "images" not in arrays:
        raise ImageError(f"{path}: no array `images` in it (it has {', '.join(arrays) or 'none'})")
    labels, classes = labels_in(arrays, str(path))
    if model is None and labels is not None and classes is None and labels.shape == (len(arrays["images"]),):
        _check_counted(labels, path)
    check_memory(8 * arrays["images"].size, f"{path}: its images as float32", "give fewer images")
    images = torch.from_numpy(images_from_array(arrays["images"], str(path), value_range))
    return Dataset(path.name, images, None if labels is None else torch.from_numpy(labels), classes)


def _check_counted(labels: np.ndarray, path: Path) -> None:
    """Raise LabelError where numbers cannot be those of classes 0, 1, …, or most likely are those of classes 1, 2, …."""
    low, high = (int(labels.min()), int(labels.max())) if labels.size else (0, 0)
    if low < 0 or high >= len(labels):
        raise LabelError(
            f"{path}: labels count classes from 0, fewer than there are images; these go from {low} to {high}"
        )
    if low == 1 and len(np.unique(labels)) == high:
        raise LabelError(
            f"{path}: labels go from 1 to {high}, so class 0 would have no images; convert them with labels - 1, or name all {high + 1} "
            "classes in an array `classes`"
        )
