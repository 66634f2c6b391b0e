"""How good a model is: its samples against held-out images of its data, and what comes back from an inversion.

The Fréchet ratio is FD(generated, real) / FD(train, real) in the features of evaluation/classifier.py, both with as many samples
as the training part has, so that real images score 1. It knows nothing of diversity within what the classifier ignores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..runtime.backends.base import Backend
from ..runtime.chain import play
from ..runtime.images import mean_squared_error
from ..runtime.schedule import SIGMA_MAX, Schedule, parse_schedule
from ..training.data import Dataset
from .classifier import Classifier
from .frechet import frechet_distance

BATCH = 128  # images per network call
ONE_STEP = parse_schedule("80>0.002")


class Judge:
    """Scores models of a labelled data set against a held-out part of it.

    Generates one sample per training image, with that image's label where the model has classes.
    """

    def __init__(self, classifier: Classifier, train: Dataset, real: Dataset) -> None:
        assert train.labels is not None and real.labels is not None
        self.classifier = classifier
        self.wanted = train.labels.numpy()
        self.images, self.labels = real.images.numpy(), real.labels.numpy()
        self.features = classifier.features(self.images)
        self.floor = frechet_distance(classifier.features(train.images.numpy()), self.features)

    @property
    def accuracy(self) -> float:
        """The classifier's share of right answers on the real images."""
        return float((self.classifier.predict(self.images) == self.labels).mean())

    def ratio(self, images: np.ndarray) -> float:
        """Fréchet ratio of float32 [N, C, S, S]; comparable between sets of equal N only."""
        return frechet_distance(self.classifier.features(images), self.features) / self.floor

    def generate(self, schedule: Schedule, backend: Backend, first_seed: int) -> np.ndarray:
        """One sample per training image: float32 [N, C, S, S]."""
        labels = None if backend.num_classes is None else self.wanted
        return _play(schedule, backend, first_seed, len(self.wanted), labels)

    def invert(self, schedule: Schedule, backend: Backend, first_seed: int) -> np.ndarray:
        """The states at level 80 of the real images: float32 [N, C, S, S]."""
        labels = None if backend.num_classes is None else self.labels
        return _play(schedule, backend, first_seed, len(self.images), labels, self.images)

    def reconstruction_error(self, schedule: Schedule, backend: Backend, first_seed: int) -> float:
        """Mean squared error in [0, 1], after rounding to uint8, of inversion by this schedule and one-step generation."""
        return self._error(self.invert(schedule, backend, first_seed), backend)

    def score(self, schedule: Schedule, backend: Backend, first_seed: int) -> float:
        """What a search makes small: the reconstruction error of an inversion, the Fréchet ratio of a generation."""
        if schedule.from_image:
            return self.reconstruction_error(schedule, backend, first_seed)
        return self.ratio(self.generate(schedule, backend, first_seed))

    def _error(self, latents: np.ndarray, backend: Backend) -> float:
        labels = None if backend.num_classes is None else self.labels
        back = _play(ONE_STEP, backend, 0, len(latents), labels, latents)
        return float(mean_squared_error(back, self.images).mean())


def _play(
    schedule: Schedule, backend: Backend, first_seed: int, n: int, labels: np.ndarray | None, x: np.ndarray | None = None
) -> np.ndarray:
    """`play` on n samples, BATCH at a time."""
    parts = [slice(i, min(i + BATCH, n)) for i in range(0, n, BATCH)]
    seeds = range(first_seed, first_seed + n)
    states = [play(schedule, backend, seeds[p], None if labels is None else labels[p], None if x is None else x[p]) for p in parts]
    return np.concatenate(states)


@dataclass(frozen=True)
class Generation:
    """One schedule's samples over several sets of seeds: mean and standard deviation of the ratio, and the share of samples
    in which the classifier sees the class that was asked for (None without classes)."""

    name: str
    schedule: Schedule
    ratio: float
    spread: float
    agreement: float | None


@dataclass(frozen=True)
class Inversion:
    """One inversion: its reconstruction error, and mean and standard deviation of the latents in units of σ_max."""

    name: str
    schedule: Schedule
    error: float
    latent_mean: float
    latent_std: float


def measure_generation(judge: Judge, backend: Backend, name: str, schedule: Schedule, first_seeds: Sequence[int]) -> Generation:
    """Generate one set of samples per first seed and score each."""
    ratios, agreements = [], []
    for first in first_seeds:
        images = judge.generate(schedule, backend, first)
        ratios.append(judge.ratio(images))
        agreements.append((judge.classifier.predict(images) == judge.wanted).mean())
    agreement = None if backend.num_classes is None else float(np.mean(agreements))
    return Generation(name, schedule, float(np.mean(ratios)), float(np.std(ratios)), agreement)


def measure_inversion(judge: Judge, backend: Backend, name: str, schedule: Schedule, first_seed: int) -> Inversion:
    """Invert every held-out image and generate it again in one step."""
    latents = judge.invert(schedule, backend, first_seed)
    error = judge._error(latents, backend)
    return Inversion(name, schedule, error, float(latents.mean() / SIGMA_MAX), float(latents.std() / SIGMA_MAX))
