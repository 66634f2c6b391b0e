"""The two parts of a data set that judging a model takes: images to fit a classifier to, and others, held out, to measure against."""

from __future__ import annotations

from pathlib import Path

import torch

from ..calibration.trajectories import MINIMUM, check_images
from ..errors import CalibrationError
from ..runtime.bundle import ModelFacts
from ..training.data import Dataset, load_dataset, load_digits

SPLIT = 4, 5  # four of five images train
SPLIT_SEED = 0


def held_out(data: str, model: ModelFacts, digits: str, test: str | None = None) -> tuple[Dataset, Dataset]:
    """(training part, held-out part) of "digits", a folder or an npz file, both fit for the model.

    digits: the part of the digits that is held out, "validation" or "test". test: a folder or an npz file of held-out images; without,
    a fifth of the data is, chosen by a fixed seed. Raises ImageError, LabelError, or CalibrationError where too few are held out.
    """
    if test is not None:
        train, real = (_load(source, model) for source in (data, test))
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
    return load_dataset(source, model.sample_shape[1] if Path(source).is_dir() else None)


def _split(data: Dataset) -> tuple[Dataset, Dataset]:
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(SPLIT_SEED))
    cut = len(order) * SPLIT[0] // SPLIT[1]
    first, rest = (
        Dataset(data.name, data.images[part], None if data.labels is None else data.labels[part]) for part in (order[:cut], order[cut:])
    )
    return first, rest
