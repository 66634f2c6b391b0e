"""How good a model is: its samples against held-out images of its data, and what comes back from an inversion.

The Fréchet ratio is FD(generated, real) / FD(train, real), both with as many samples, so that real images score 1; so it is with the
other figures of `Judge.reference`. By default the features are those of evaluation/classifier.py, which know nothing of diversity
within what the classifier ignores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np

from ..errors import ImageError, LabelError
from ..runtime.backends.base import Backend
from ..runtime.batches import Batch, play_in_parts
from ..runtime.chain import play
from ..runtime.pixels import mean_squared_error
from ..runtime.schedule import ONE_STEP, SIGMA_MAX, Schedule
from ..training.dataset import Dataset
from .classifier import Classifier
from .distances import NEIGHBOUR, frechet_distance, kernel_distance, precision_recall, radii
from .extractors import Extractor

BATCH = 128  # images per network call
CHOICE_SEED = 0  # of the images that are taken where not all are


@dataclass(frozen=True)
class Scores:
    """One set of images against the held-out ones, in the judge's features: Fréchet distance and its ratio to that of real images,
    kernel distance, and precision and recall in [0, 1] (evaluation/distances.py)."""

    frechet: float
    ratio: float
    kid: float
    precision: float
    recall: float


class Judge:
    """Scores models of a data set against a held-out part of it.

    classifier: fitted to the training part; None for data without labels. extractor: of the features, by default the classifier.
    samples: how many images are generated, with the labels of as many training images where the model has classes, and how many
    training images they are measured by; by default one per training image. reconstructed: how many held-out images are inverted,
    by default all. Where not all are taken, a fixed seed chooses. Raises ImageError for numbers that there are no images for, LabelError
    without classifier and extractor.
    """

    def __init__(
        self,
        classifier: Classifier | None,
        train: Dataset,
        real: Dataset,
        extractor: Extractor | None = None,
        samples: int | None = None,
        reconstructed: int | None = None,
    ) -> None:
        if extractor is None:
            if classifier is None:
                raise LabelError(
                    f"{train.name}: features need an extractor where there is no classifier, as without labels"
                )
            extractor = classifier
        self.classifier, self.extractor = classifier, extractor
        self.images, self.labels = real.images.numpy(), _labels(real)
        chosen = _choice(train, samples, NEIGHBOUR + 1)
        self.samples = len(chosen)
        self.wanted = _labels(train, chosen)
        inverted = _choice(real, reconstructed, 1)
        self.originals, self.original_labels = self.images[inverted], _labels(real, inverted)
        self.features = self.extractor.features(self.images)
        self._train_features = self.extractor.features(train.images.numpy()[chosen])
        self._data = train.name
        self.floor = frechet_distance(self._train_features, self.features)

    @property
    def accuracy(self) -> float:
        """The classifier's share of right answers on the held-out images. Raises LabelError without classifier or labels."""
        if self.labels is None:
            raise self._unlabelled("right answers")
        return float((self._predict(self.images) == self.labels).mean())

    @cached_property
    def reference(self) -> Scores:
        """The scores of the training images, as many as are generated: what real images reach. Its ratio is 1."""
        return self._scores(self._train_features)

    def scores(self, images: np.ndarray) -> Scores:
        """Of float32 [N, C, S, S]; comparable between sets of equal N only. Raises ImageError for fewer than 4."""
        return self._scores(self.extractor.features(images))

    def ratio(self, images: np.ndarray) -> float:
        """Fréchet ratio of float32 [N, C, S, S]; comparable between sets of equal N only."""
        return frechet_distance(self.extractor.features(images), self.features) / self.floor

    def agreement(self, images: np.ndarray) -> float:
        """The classifier's share of samples of the class that was asked for. Raises LabelError without classifier or labels."""
        if self.wanted is None:
            raise self._unlabelled("label agreement")
        return float((self._predict(images) == self.wanted).mean())

    def generate(self, schedule: Schedule, backend: Backend, first_seed: int) -> np.ndarray:
        """The samples: float32 [N, C, S, S]. Raises LabelError if the model has classes and the training images have no labels."""
        seeds = range(first_seed, first_seed + self.samples)
        return _play(schedule, backend, Batch(seeds, self._asked(backend, self.wanted)))

    def invert(self, schedule: Schedule, backend: Backend, first_seed: int) -> np.ndarray:
        """The states at level 80 of `originals`: float32 [N, C, S, S]. Raises LabelError if the model has classes and they have none."""
        labels = self._asked(backend, self.original_labels)
        seeds = range(first_seed, first_seed + len(self.originals))
        return _play(schedule, backend, Batch(seeds, labels), self.originals)

    def reconstruct(self, latents: np.ndarray, backend: Backend) -> np.ndarray:
        """What one step makes of the inverted `originals`: float32 [N, C, S, S]."""
        labels = self._asked(backend, self.original_labels)
        return _play(ONE_STEP, backend, Batch(range(len(latents)), labels), latents)

    def reconstruction_error(self, schedule: Schedule, backend: Backend, first_seed: int) -> float:
        """Mean squared error in [0, 1], after rounding to uint8, of inversion by this schedule and one-step generation."""
        return self._error(self.invert(schedule, backend, first_seed), backend)

    def score(self, schedule: Schedule, backend: Backend, first_seed: int) -> float:
        """What a search makes small: the reconstruction error of an inversion, the Fréchet ratio of a generation."""
        if schedule.from_image:
            return self.reconstruction_error(schedule, backend, first_seed)
        return self.ratio(self.generate(schedule, backend, first_seed))

    @cached_property
    def _radii(self) -> np.ndarray:
        return radii(self.features)

    def _error(self, latents: np.ndarray, backend: Backend) -> float:
        return float(mean_squared_error(self.reconstruct(latents, backend), self.originals).mean())

    def _scores(self, features: np.ndarray) -> Scores:
        frechet = frechet_distance(features, self.features)
        precision, recall = precision_recall(self.features, features, real_radii=self._radii)
        return Scores(
            frechet, frechet / self.floor, kernel_distance(features, self.features), precision, recall
        )

    def _predict(self, images: np.ndarray) -> np.ndarray:
        if self.classifier is None:
            raise LabelError(
                f"{self._data}: no classifier was fitted to it, which label agreement and accuracy need"
            )
        return self.classifier.predict(images)

    def _asked(self, backend: Backend, labels: np.ndarray | None) -> np.ndarray | None:
        """The labels that this model is to be given."""
        if backend.num_classes is None:
            return None
        if labels is None:
            raise self._unlabelled("a model with classes")
        return labels

    def _unlabelled(self, what: str) -> LabelError:
        return LabelError(
            f"{self._data}: {what} cannot be measured without labels; give an npz with `labels`, or one folder per class"
        )


def _choice(data: Dataset, n: int | None, least: int) -> np.ndarray:
    """Which images are taken: all, in the data's order, or fewer in a random one, since files may be sorted by class. Raises ImageError."""
    if n is None or n == len(data):
        return np.arange(len(data))
    if not least <= n <= len(data):
        raise ImageError(
            f"{data.name}: {n} of its {len(data)} images were asked for; give a number from {least} to {len(data)}"
        )
    return np.random.default_rng(CHOICE_SEED).permutation(len(data))[:n]


def _labels(data: Dataset, chosen: np.ndarray | None = None) -> np.ndarray | None:
    if data.labels is None:
        return None
    labels = data.labels.numpy()
    return labels if chosen is None else labels[chosen]


def _play(schedule: Schedule, backend: Backend, batch: Batch, x: np.ndarray | None = None) -> np.ndarray:
    """`play`, with at most BATCH samples at a time."""
    return play_in_parts(partial(play, schedule, backend), BATCH, batch, x)


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


def measure_generation(
    judge: Judge, backend: Backend, name: str, schedule: Schedule, first_seeds: Sequence[int]
) -> Generation:
    """Generate one set of samples per first seed and score each."""
    ratios, agreements = [], []
    for first in first_seeds:
        images = judge.generate(schedule, backend, first)
        ratios.append(judge.ratio(images))
        if backend.num_classes is not None:
            agreements.append(judge.agreement(images))
    agreement = float(np.mean(agreements)) if agreements else None
    return Generation(name, schedule, float(np.mean(ratios)), float(np.std(ratios)), agreement)


def measure_inversion(
    judge: Judge, backend: Backend, name: str, schedule: Schedule, first_seed: int
) -> Inversion:
    """Invert the held-out images and generate them again in one step."""
    latents = judge.invert(schedule, backend, first_seed)
    error = judge._error(latents, backend)
    return Inversion(
        name, schedule, error, float(latents.mean() / SIGMA_MAX), float(latents.std() / SIGMA_MAX)
    )
