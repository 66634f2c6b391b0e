"""The two parts of a data set that judge a model: training images for a classifier, and held-out images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ..calibration.trajectories import MINIMUM, check_images
from ..errors import CalibrationError, ImageError, InputError, LabelError
from ..runtime.pixels import ValueRange
from ..runtime.storage.manifest import ModelFacts
from ..training.data import load_dataset, load_digits
from ..training.dataset import Dataset, digest
from ..training.matching import matched
from ..training.validation import split

SPLIT = 4, 5  # four of five images are training images
SPLIT_SEED = 0


def held_out(
    data: str, model: ModelFacts, digits: str, test: str | None = None, value_range: ValueRange = None
) -> tuple[Dataset, Dataset]:
    """Return (training part, held-out part) of a data set. Both fit the model and have its labels.

    data: "digits", a folder, or a file of arrays. digits: the part of the digits that is held out,
    "validation" or "test". test: the held-out images, "digits", a folder or a file; None holds out a fifth of
    the data, and all images of one name together. The held-out part of a folder or file is in a fixed random
    order, because files may be sorted by class. value_range: of float images in files.

    Raises ImageError if the images do not fit the model, or if most held-out images are also in the data;
    LabelError if the classes are not those of the model; CalibrationError if there are too few held-out
    images.
    """
    train, real = _parts(data, model, digits, test, value_range)
    for part in (train, real):
        labels = None if part.labels is None else part.labels.numpy()
        check_images(part.images.numpy(), labels, part.name, model.sample_shape, model.num_classes)
    if len(real) < MINIMUM:
        raise CalibrationError(
            f"{test or data}: only {len(real)} images are held out; schedules are measured on at least"
            f" {MINIMUM}"
        )
    return train, real


def _parts(
    data: str, model: ModelFacts, digits: str, test: str | None, value_range: ValueRange
) -> tuple[Dataset, Dataset]:
    if test is not None:
        if test == "digits":
            real = matched(load_digits(digits), model)
        else:
            real = _shuffled(load_dataset(test, None, model, value_range))
        train = load_dataset(data, None, model, value_range)
        _check_apart(train, real)
        return train, real
    if data == "digits":
        return matched(load_digits("train"), model), matched(load_digits(digits), model)
    return _split(load_dataset(data, None, model, value_range))


def _check_apart(train: Dataset, real: Dataset) -> None:
    """Raise LabelError if the classes differ, ImageError if most of the held-out images are in `train`."""
    if train.classes and real.classes and train.classes != real.classes:
        odd = min(set(train.classes) ^ set(real.classes), default=train.classes[0])
        raise LabelError(
            f"{real.name}: its sub-folders are not those of {train.name} (only one has {odd!r}), so the"
            " numbers of their classes differ"
        )
    seen = {digest([image]) for image in train.images}
    known = sum(digest([image]) in seen for image in real.images)
    if 2 * known > len(real):
        raise ImageError(
            f"{real.name}: {known} of its {len(real)} images are also in {train.name},"
            " so they are not held out"
        )


def trained_on_all(
    data: str, model: ModelFacts, provenances: Mapping[str, Mapping[str, Any]], value_range: ValueRange = None
) -> list[str]:
    """Return the names of the models that were trained on the data, so that no part of it is held out.

    Images that a run held out for its validation losses are another part.

    provenances: name → what the file of the model records about its training.
    """
    if data == "digits" or not any("data" in provenance for provenance in provenances.values()):
        return []
    whole = load_dataset(data, None, model, value_range)
    return [
        name
        for name, provenance in provenances.items()
        if provenance.get("data") == _trained_part(whole, provenance.get("held_out", 0)).digest
    ]


def _trained_part(whole: Dataset, share: float) -> Dataset:
    """Return the images that a run with this share of held-out images trains on."""
    try:
        return split(whole, share)[0] if share else whole
    except InputError:  # the run had other data, because these cannot be split
        return whole


def _split(data: Dataset) -> tuple[Dataset, Dataset]:
    """Return four fifths of a data set and the rest. Images with the same name are in the same part."""
    mixed = _shuffled(data)
    if mixed.names is None:
        rows, cut = torch.arange(len(mixed)), _cut(len(mixed))
        return mixed.part(rows[:cut]), mixed.part(rows[cut:])
    names = list(dict.fromkeys(mixed.names))  # in random order, as the images
    first = {*names[: _cut(len(names))]}
    is_first = torch.tensor([name in first for name in mixed.names])
    return mixed.part(torch.where(is_first)[0]), mixed.part(torch.where(~is_first)[0])


def _cut(n: int) -> int:
    return n * SPLIT[0] // SPLIT[1]


def _shuffled(data: Dataset) -> Dataset:
    return data.part(torch.randperm(len(data), generator=torch.Generator().manual_seed(SPLIT_SEED)))
