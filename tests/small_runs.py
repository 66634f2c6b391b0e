"""Small data sets, and training runs on them that take a moment."""

from __future__ import annotations

import torch

from bcm_edge.training.dataset import Dataset
from bcm_edge.training.networks import network_for
from bcm_edge.training.options import TrainOptions
from bcm_edge.training.trainer import Trainer

SMALL = TrainOptions(steps=7, batch=4, channels=8, intervals=20)
EDM = TrainOptions(steps=7, batch=4, channels=8, objective="edm")


def random_data(n: int = 12, size: int = 8, classes: int | None = 3) -> Dataset:
    """Return n grey images of uniform noise, with labels in turn or without labels."""
    generator = torch.Generator().manual_seed(5)
    labels = None if classes is None else torch.arange(n) % classes
    return Dataset("random", torch.rand((n, 1, size, size), generator=generator) * 2 - 1, labels)


def two_shapes(n: int = 12) -> Dataset:
    """Return n images of 8×8 pixels whose left (label 0) or right half (label 1) is white."""
    images = torch.full((n, 1, 8, 8), -1.0)
    labels = torch.arange(n) % 2
    for image, label in zip(images, labels, strict=True):
        image[0, :, 4 * label : 4 * label + 4] = 1
    return Dataset("shapes", images, labels)


def new_run(dataset: Dataset, options: TrainOptions = SMALL) -> Trainer:
    """Return a training run with a network of 8 channels before its first step."""
    return Trainer(dataset, network_for(dataset, 8), options)


def trained_a_little(dataset: Dataset) -> Trainer:
    """Return a training run after three steps.

    Before the first steps the last layers are zero, so that no gradient reaches the layers below them.
    """
    run = new_run(dataset)
    for _ in range(3):
        run.step()
    return run
