"""Losses on images that a model is not trained on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from ..errors import InputError
from .dataset import Dataset, without_images
from .networks import new_model
from .objective import Objective
from .trainer import Trainer, objective_of

SEED = 2024  # seed of the choice of the images, and of the noise at which the losses are measured


def split(dataset: Dataset, share: float) -> tuple[Dataset, Dataset]:
    """Return (the images to train on, the held-out images), with equal shares of every class.

    If images have names, whole names are held out in place of images: all images of one thing are in the same
    part, and the shares of the classes are about equal.

    The choice depends only on the classes or names of the images and their order, not on the seed of a run.
    Without names, a class of one image is not held out.

    Raises InputError if no image is held out, or none of a class is left to train on.
    """
    held_out = _chosen_names(dataset.names, share) if dataset.names else _chosen_images(dataset, share)
    if not held_out.any():
        unit = "names" if dataset.names else "each class"
        raise InputError(
            f"{dataset.name}: {len(dataset)} images are too few to hold out {share:.3g} of {unit}; give "
            "a larger share with --held-out"
        )
    rest = _rows(dataset, ~held_out)
    if any(before and not after for before, after in _counts(dataset, rest)):
        raise InputError(
            f"{dataset.name}: with {share:.3g} of the names held out, no images of these classes are left to "
            f"train on: {without_images(rest, dataset.num_classes)}; give a smaller share with --held-out"
        )
    return rest, _rows(dataset, held_out)


def _counts(dataset: Dataset, part: Dataset) -> Iterator[tuple[int, int]]:
    """Yield for each class the number of its images, and how many of them are in a part."""
    return zip(dataset.counts(), part.counts(dataset.num_classes), strict=True)


def _chosen_images(dataset: Dataset, share: float) -> np.ndarray:
    """Return which images are held out, bool [N]: a share of each class."""
    generator = np.random.default_rng(SEED)
    labels = np.zeros(len(dataset)) if dataset.labels is None else dataset.labels.numpy()
    chosen = [np.zeros(0, np.int64)]
    for label in np.unique(labels):
        rows = generator.permutation(np.flatnonzero(labels == label))
        chosen.append(rows[: min(round(share * len(rows)), len(rows) - 1)])
    held_out = np.zeros(len(dataset), bool)
    held_out[np.concatenate(chosen)] = True
    return held_out


def _chosen_names(names: Sequence[str], share: float) -> np.ndarray:
    """Return which images are held out, bool [N]: those of a share of the names."""
    distinct = np.unique(names)
    chosen = np.random.default_rng(SEED).permutation(distinct)[: round(share * len(distinct))]
    return np.isin(names, chosen)


@torch.no_grad()
def validation_losses(trainer: Trainer, held_out: Dataset) -> dict[str, float]:
    """Return the losses of the averaged weights by name, with the teacher of the run if it has one.

    They are measured on the finest grid of the run and with the same noise each time, so the values at
    different steps can be compared.
    """
    model = new_model(type(trainer.model), trainer.config, 0)
    model.network.load_state_dict(trainer.average)
    teacher = trainer.objective.teacher if isinstance(trainer.objective, Objective) else None
    objective = objective_of(model.to(trainer.device), teacher)
    generator = torch.Generator().manual_seed(SEED)
    totals: dict[str, float] = {}
    for part in _batches(held_out, trainer.execution.part_of(trainer.options.batch)):
        at = trainer.random_numbers(part.images.shape, trainer.options.intervals, generator)
        for name, loss in trainer.losses(part.images, part.labels, at, objective).items():
            totals[name] = totals.get(name, 0.0) + loss.item() * len(part) / len(held_out)
    return totals


def _batches(dataset: Dataset, size: int) -> Iterator[Dataset]:
    for first in range(0, len(dataset), size):
        yield _rows(dataset, slice(first, first + size))


def _rows(dataset: Dataset, rows: np.ndarray | slice) -> Dataset:
    return dataset.part(torch.from_numpy(np.arange(len(dataset))[rows]))
