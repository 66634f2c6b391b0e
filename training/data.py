"""Load data sets for training and measuring: scikit-learn's digits, folders of images, npz and npy files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from ..errors import ImageError, InputError, LabelError
from ..runtime.classes import labels_in
from ..runtime.machine.resources import check_memory
from ..runtime.pictures.images import images_from_array
from ..runtime.pixels import ValueRange
from ..runtime.storage.arrays import is_array_file, read_arrays, required
from ..runtime.storage.manifest import ModelFacts
from .dataset import Dataset, without_images
from .folders import read_folder
from .matching import matched

SPLIT_SEED = 2024  # seed of the split of the digits; all published figures for them depend on it


def load_dataset(
    source: str,
    image_size: int | None = None,
    model: ModelFacts | None = None,
    value_range: ValueRange = None,
) -> Dataset:
    """Load a data set.

    source: "digits" (their training part), a folder of images, or an npz or npy file.
    image_size: pixels a side. The images of a folder are cropped to squares and resized to it. By default, it
    is the size that most of them have. They become grey or coloured like most of them.
    model: the model that the data is for. It decides the size and colour of a folder's images, and labels
    become its class numbers (see `matched`).
    value_range: the range of float images in a file of arrays (see `in_signed_range`).

    Raises ImageError, LabelError or InputError.
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
    side = dataset.images.shape[2]
    if image_size not in (None, side):
        raise ImageError(
            f"{dataset.name}: {side} pixels wide, not {image_size}; only the images of a folder are resized"
        )
    if model is not None:
        dataset = matched(dataset, model)
    empty = without_images(dataset, None if model is None else model.num_classes)
    return dataset.noted(f"{dataset.name}: no images of these classes: {empty}") if empty else dataset


def load_digits(part: str) -> Dataset:
    """Load scikit-learn's 1797 digits, 8×8 grey pixels, 10 classes.

    They are split with a fixed seed and equal shares of every class. part: "train", 1257 images to train on;
    "validation", 180 images to choose settings with; "test", 360 images to report results on.
    """
    # Imported here, because scikit-learn is optional and takes a second to import.
    from sklearn.datasets import load_digits as fetch
    from sklearn.model_selection import train_test_split

    pixels, target = fetch(return_X_y=True)
    rest, test = train_test_split(
        np.arange(len(target)), test_size=360, stratify=target, random_state=SPLIT_SEED
    )
    train, validation = train_test_split(rest, test_size=180, stratify=target[rest], random_state=SPLIT_SEED)
    rows = {"train": train, "validation": validation, "test": test}[part]
    values = pixels[rows] / 8 - 1  # the pixels are 0 to 16
    images = torch.from_numpy(values).float().reshape(-1, 1, 8, 8)
    return Dataset(f"digits ({part})", images, torch.from_numpy(target[rows]).long())


def _from_arrays(path: Path, model: ModelFacts | None, value_range: ValueRange) -> Dataset:
    """Load a file with the array `images` (see `images_from_array`).

    Optional arrays are `labels`, integers or names [N], `classes`, the names of all classes, and `names`,
    texts [N]: what each image shows.
    """
    arrays = read_arrays(path, "images")
    array = required(arrays, "images", path)
    labels, classes = labels_in(arrays, str(path))
    if model is None and labels is not None and classes is None and labels.shape == (len(array),):
        _check_counted(labels, path)
    check_memory(8 * array.size, f"{path}: its images as float32", "give fewer images")
    images = torch.from_numpy(images_from_array(array, str(path), value_range))
    dataset = Dataset(path.name, images, None if labels is None else torch.from_numpy(labels), classes)
    return _with_names(dataset, arrays.get("names"))


def _with_names(dataset: Dataset, names: np.ndarray | None) -> Dataset:
    """Return the data set with the names of its images. A note says so if an array `names` has others."""
    if names is None:
        return dataset
    if names.dtype.kind != "U" or names.shape != (len(dataset),):
        return dataset.noted(
            f"{dataset.name}: `names` is not used: it has shape {list(names.shape)} and type {names.dtype}, "
            f"and the names of images are texts of shape [{len(dataset)}]"
        )
    return replace(dataset, names=tuple(names.tolist()))


def _check_counted(labels: np.ndarray, path: Path) -> None:
    """Raise LabelError if labels cannot be numbers of classes 0, 1, …, or probably count from 1."""
    low, high = (int(labels.min()), int(labels.max())) if labels.size else (0, 0)
    if low < 0 or high >= len(labels):
        raise LabelError(
            f"{path}: labels must be class numbers from 0, fewer than there are images; "
            f"these go from {low} to {high}"
        )
    if low == 1 and len(np.unique(labels)) == high:
        raise LabelError(
            f"{path}: labels go from 1 to {high}, so class 0 would have no images; "
            f"convert them with labels - 1, or name all {high + 1} classes in an array `classes`"
        )
