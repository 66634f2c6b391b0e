"""Match the classes of a data set with those of a model: labels become the class numbers of the model."""

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
    """Return the data set with the class numbers of the model as labels. A note explains what was assumed.

    - If both have class names, classes are matched by name.
    - If the data has no names, its labels are the numbers of the model.
    - If the model has no names, class names that are numbers are its numbers. Other names are matched by
      their order, if there are as many as the model has classes.

    Raises LabelError if the model does not have a class of the data, or if it is unclear which one it is.
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
    """Match data without class names."""
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


def _by_name(dataset: Dataset, names: tuple[str, ...], model_names: tuple[str, ...]) -> Dataset:
    """Match class names of the data with those of the model."""
    counts = zip(names, dataset.counts(), strict=True)
    if unknown := [name for name, count in counts if count and name not in model_names]:
        raise LabelError(
            f"{dataset.name}: the model has no class {listed(unknown)}; "
            f"its classes are {listed(model_names)}, those of the data {listed(names)}"
        )
    numbers_by_name = {name: label for label, name in enumerate(model_names)}
    # A class that the model does not have has no images, so its number does not matter.
    numbers = [numbers_by_name.get(name, 0) for name in names]
    renumbered = _renumbered(dataset, numbers, model_names)
    if numbers == [*range(len(names))]:
        return renumbered
    pairs = [f"{name} is {numbers_by_name[name]}" for name in names if name in numbers_by_name]
    note = f"{dataset.name}: classes are numbered as in the model, by name: {listed(pairs)}"
    return renumbered.noted(note)


def _by_value(dataset: Dataset, numbers: list[int], num_classes: int) -> Dataset:
    """Match class names that are numbers with a model without class names."""
    if max(numbers) >= num_classes:
        raise LabelError(
            f"{dataset.name}: its classes have the names {listed(list(map(str, numbers)))}, "
            f"but the model has classes 0 to {num_classes - 1} without names; "
            "name the folders by the model's numbers"
        )
    renumbered = _renumbered(dataset, numbers, None)
    if numbers == [*range(num_classes)]:
        return renumbered
    return renumbered.noted(
        f"{dataset.name}: the model has no class names; names that are numbers are taken as its numbers"
    )


def _by_position(dataset: Dataset, names: tuple[str, ...], num_classes: int) -> Dataset:
    """Match class names by their order with a model without class names."""
    if len(names) != num_classes:
        raise LabelError(
            f"{dataset.name}: has {len(names)} classes ({listed(names)}), and the model has {num_classes} "
            "without names, so it is unclear which class is which; "
            "name the folders by the model's numbers (0, 1, …), or give an npz file with images and labels"
        )
    return dataset.noted(
        f"{dataset.name}: the model has no class names; "
        f"its classes 0 to {num_classes - 1} are taken as {listed(names)}"
    )


def _renumbered(dataset: Dataset, numbers: Sequence[int], names: tuple[str, ...] | None) -> Dataset:
    """Return the data set with numbers[label] instead of each label."""
    assert dataset.labels is not None
    return replace(dataset, labels=torch.tensor(numbers)[dataset.labels], classes=names)
