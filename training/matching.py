"""The classes of a data set beside those of a model: labels are the model's numbers, found by name where both have names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from ..errors import LabelError
from ..runtime.classes import all_numbers
from ..runtime.storage.manifest import ModelFacts
from ..runtime.wording import listed
from .dataset import Dataset


def matched(dataset: Dataset, model: ModelFacts) -> Dataset:
    """The data with the labels that the model knows its classes by; a note says what was assumed.

    By name where both have names. A model without names knows its classes by number: names that are numbers are those classes,
    other names are taken in their order, which needs as many as the model has. Raises LabelError where a class of the data is
    unknown to the model, or nothing says which one it is.
    """
    if dataset.labels is None or model.num_classes is None:
        return dataset
    if dataset.classes is None:
        return _by_number(dataset, model.num_classes, model.classes)
    if model.classes is not None:
        return _by_name(dataset, dataset.classes, model.classes)
    if all_numbers(dataset.classes):
        return _by_value(dataset, [int(name) for name in dataset.classes], model.num_classes)
    return _by_position(dataset, dataset.classes, model.num_classes)


def _by_number(dataset: Dataset, num_classes: int, names: tuple[str, ...] | None) -> Dataset:
    assert dataset.labels is not None
    low, high = int(dataset.labels.min()), int(dataset.labels.max())
    if high >= num_classes:
        hint = "; labels count from 0: subtract 1 (labels - 1)" if low >= 1 and high == num_classes else ""
        raise LabelError(
            f"{dataset.name}: has labels {low} to {high}; the model has classes 0 to {num_classes - 1}{hint}"
        )
    if names is None:
        return dataset
    meaning = listed([f"{label} {names[label]}" for label in dataset.labels.unique().tolist()])
    return replace(dataset, classes=names).noted(
        f"{dataset.name}: has no class names; its labels are taken as the model's numbers: {meaning}"
    )


def _by_name(dataset: Dataset, names: tuple[str, ...], wanted: tuple[str, ...]) -> Dataset:
    counts = dataset.counts()
    if unknown := [name for name, count in zip(names, counts, strict=True) if count and name not in wanted]:
        raise LabelError(
            f"{dataset.name}: the model has no class {listed(unknown)}; its classes are {listed(wanted)}, those of the data {listed(names)}"
        )
    places = {name: label for label, name in enumerate(wanted)}
    numbers = [places.get(name, 0) for name in names]  # a name that the model does not know has no image
    moved = [f"{name} is {number}" for name, number in zip(names, numbers, strict=True) if name in places]
    same = numbers == [*range(len(names))]
    return _renumbered(dataset, numbers, wanted).noted(
        *([] if same else [f"{dataset.name}: classes are numbered as in the model, by name: {listed(moved)}"])
    )


def _by_value(dataset: Dataset, numbers: list[int], num_classes: int) -> Dataset:
    if max(numbers) >= num_classes:
        raise LabelError(
            f"{dataset.name}: its classes have the names {listed(list(map(str, numbers)))}, but the model has classes 0 to "
            f"{num_classes - 1} without names; name the folders by the model's numbers"
        )
    note = f"{dataset.name}: the model has no class names; names that are numbers are taken as its numbers"
    return _renumbered(dataset, numbers, None).noted(*([] if numbers == [*range(num_classes)] else [note]))


def _by_position(dataset: Dataset, names: tuple[str, ...], num_classes: int) -> Dataset:
    if len(names) != num_classes:
        raise LabelError(
            f"{dataset.name}: has {len(names)} classes ({listed(names)}), and the model has {num_classes} without names, so it is unknown "
            "which is which; name the folders by the model's numbers (0, 1, …), or give an npz with images and labels"
        )
    return dataset.noted(
        f"{dataset.name}: the model has no class names; its classes 0 to {num_classes - 1} are taken as {listed(names)}"
    )


def _renumbered(dataset: Dataset, numbers: Sequence[int], names: tuple[str, ...] | None) -> Dataset:
    assert dataset.labels is not None
    return replace(dataset, labels=torch.tensor(numbers)[dataset.labels], classes=names)
