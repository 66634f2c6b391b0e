"""The two parts of a data set that judging a model takes: images to fit a classifier to, and others, held out, to measure against."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from ..calibration.trajectories import MINIMUM, check_images
from ..errors import CalibrationError, ImageError, LabelError
from ..runtime.pixels import ValueRange
from ..runtime.storage.manifest import ModelFacts
from ..training.data import load_dataset, load_digits
from ..training.dataset import Dataset, digest
from ..training.matching import matched

SPLIT = 4, 5  # four of five images train
SPLIT_SEED = 0


def held_out(
    data: str, model: ModelFacts, digits: str, test: str | None = None, value_range: ValueRange = None
) -> tuple[Dataset, Dataset]:
    """(training part, held-out part) of "digits", a folder or a file of arrays, both fit for the model and with its labels.

    digits: the part of the digits that is held out, "validation" or "test". test: "digits", a folder or a file of held-out images;
    without, a fifth of the data is. Either comes in a fixed random order, since files may be sorted by class. value_range: of float
    images in files. Raises ImageError, also where the held-out images are those of the data, LabelError, also where classes of the
    data are not the model's, CalibrationError for too few.
    """
    if test is not None:
        real = (
            matched(load_digits(digits), model)
            if test == "digits"
            else _shuffled(load_dataset(test, None, model, value_range))
        )
        train = load_dataset(data, None, model, value_range)
        _check_apart(train, real)
    elif data == "digits":
        train, real = (matched(load_digits(part), model) for part in ("train", digits))
    else:
        train, real = _split(load_dataset(data, None, model, value_range))
    for part in (train, real):
        labels = None if part.labels is None else part.labels.numpy()
        check_images(part.images.numpy(), labels, part.name, model.sample_shape, model.num_classes)
    if len(real) < MINIMUM:
        source = test or data
        raise CalibrationError(
            f"{source}: {len(real)} images are held out to measure schedules against; the least is {MINIMUM}"
        )
    return train, real


def _check_apart(train: Dataset, real: Dataset) -> None:
    if train.classes and real.classes and train.classes != real.classes:
        odd = min(set(train.classes) ^ set(real.classes), default=train.classes[0])
        raise LabelError(
            f"{real.name}: its sub-folders are not those of {train.name} ({odd!r} is in one alone), so the numbers of their classes differ"
        )
    seen = {digest([image]) for image in train.images}
    known = sum(digest([image]) in seen for image in real.images)
    if 2 * known > len(real):
        raise ImageError(
            f"{real.name}: {known} of its {len(real)} images are among those of {train.name}, so they are not held out"
        )


def trained_on_all(
    data: str, model: ModelFacts, provenances: Mapping[str, Mapping[str, Any]], value_range: ValueRange = None
) -> list[str]:
    """Which of these, by what is told of their making, were trained on all of the data, so that no part of it is held out from them."""
    if data == "digits" or not any("data" in told for told in provenances.values()):
        return []
    whole = load_dataset(data, None, model, value_range).digest
    return [name for name, told in provenances.items() if told.get("data") == whole]


def _split(data: Dataset) -> tuple[Dataset, Dataset]:
    mixed, cut = _shuffled(data), len(data) * SPLIT[0] // SPLIT[1]
    return _part(mixed, slice(cut)), _part(mixed, slice(cut, None))


def _shuffled(data: Dataset) -> Dataset:
    return _part(data, torch.randperm(len(data), generator=torch.Generator().manual_seed(SPLIT_SEED)))


def _part(data: Dataset, rows: slice | torch.Tensor) -> Dataset:
    return replace(data, images=data.images[rows], labels=None if data.labels is None else data.labels[rows])
