"""The two parts of a data set that judging a model takes: images to fit a classifier to, and others, held out, to measure against."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ..calibration.trajectories import MINIMUM, check_images
from ..errors import CalibrationError, ImageError, LabelError
from ..runtime.bundle import ModelFacts
from ..training.data import Dataset, load_dataset, load_digits

SPLIT = 4, 5  # four of five images train
SPLIT_SEED = 0


def held_out(data: str, model: ModelFacts, digits: str, test: str | None = None) -> tuple[Dataset, Dataset]:
    """(training part, held-out part) of "digits", a folder or an npz file, both fit for the model.

    digits: the part of the digits that is held out, "validation" or "test". test: "digits", a folder or an npz file of held-out images;
    without, a fifth of the data is. Either comes in a fixed random order, since files may be sorted by class. Raises ImageError, also where
    the held-out images are those of the data, LabelError, also where the two number other classes, CalibrationError for too few.
    """
    if test is not None:
        train, real = _load(data, model), load_digits(digits) if test == "digits" else _shuffled(_load(test, model))
        _check_apart(train, real)
    elif data == "digits":
        train, real = load_digits("train"), load_digits(digits)
    else:
        train, real = _split(_load(data, model))
    for part in (train, real):
        labels = None if part.labels is None else part.labels.numpy()
        check_images(part.images.numpy(), labels, part.name, model.sample_shape, model.num_classes)
    if len(real) < MINIMUM:
        source = test or data
        raise CalibrationError(f"{source}: {len(real)} images are held out to measure schedules against; the least is {MINIMUM}")
    return train, real


def _load(source: str, model: ModelFacts) -> Dataset:
    channels, height, _ = model.sample_shape
    return load_dataset(source, height, channels) if Path(source).is_dir() else load_dataset(source)


def _check_apart(train: Dataset, real: Dataset) -> None:
    if train.classes and real.classes and train.classes != real.classes:
        odd = min(set(train.classes) ^ set(real.classes), default=train.classes[0])
        raise LabelError(
            f"{real.name}: its sub-folders are not those of {train.name} ({odd!r} is in one alone), so the numbers of their classes differ"
        )
    seen = {image.tobytes() for image in train.images.numpy()}
    known = sum(image.tobytes() in seen for image in real.images.numpy())
    if 2 * known > len(real):
        raise ImageError(f"{real.name}: {known} of its {len(real)} images are among those of {train.name}, so they are not held out")


def trained_on_all(data: str, model: ModelFacts, provenances: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Which of these, by what is told of their making, were trained on all of the data, so that no part of it is held out from them."""
    if data == "digits" or not any("data" in told for told in provenances.values()):
        return []
    whole = _load(data, model).digest
    return [name for name, told in provenances.items() if told.get("data") == whole]


def _split(data: Dataset) -> tuple[Dataset, Dataset]:
    mixed, cut = _shuffled(data), len(data) * SPLIT[0] // SPLIT[1]
    return _part(mixed, slice(cut)), _part(mixed, slice(cut, None))


def _shuffled(data: Dataset) -> Dataset:
    return _part(data, torch.randperm(len(data), generator=torch.Generator().manual_seed(SPLIT_SEED)))


def _part(data: Dataset, rows: slice | torch.Tensor) -> Dataset:
    return replace(data, images=data.images[rows], labels=None if data.labels is None else data.labels[rows])
