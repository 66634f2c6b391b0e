"""The quality of a model: its samples against held-out images, and the error of its reconstructions.

The Fréchet ratio is FD(generated, real) / FD(train, real), with equally many generated and training images,
so that real images have a ratio of 1. `Judge.reference` has the other figures of the training images. The
default features are those of evaluation/classifier.py; they do not see diversity that the classifier ignores.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np

from ..errors import ImageError, LabelError
from ..runtime.backends.base import Backend
from ..runtime.batches import Batch, play_in_parts
from ..runtime.chain import play
from ..runtime.pixels import mean_squared_error
from ..runtime.schedule import ONE_STEP, Schedule
from ..training.dataset import Dataset
from .classifier import Classifier
from .distances import NEIGHBOUR, frechet_distance, kernel_distance, precision_recall, radii
from .extractors import Extractor

BATCH = 128  # images per network call
CHOICE_SEED = 0  # seed for choosing images, if not all are used


@dataclass(frozen=True)
class Scores:
    """The distances of a set of images to the held-out images, in the judge's features (see distances.py)."""

    # Fréchet distance
    frechet: float
    # the Fréchet distance divided by that of the training images
    ratio: float
    # kernel distance
    kid: float
    # in [0, 1]
    precision: float
    # in [0, 1]
    recall: float


class Judge:
    """A judge, which scores models of a data set against a held-out part of it."""

    def __init__(
        self,
        classifier: Classifier | None,
        train: Dataset,
        real: Dataset,
        extractor: Extractor | None = None,
        samples: int | None = None,
        reconstructed: int | None = None,
    ) -> None:
        """Choose the images, and compute the features of the real ones.

        classifier: trained on the training part; None for data without labels.
        extractor: extracts the features; None for the classifier.
        samples: the number of images to generate; None for one per training image. They are compared with as
            many training images. If the model has classes, they get the labels of these training images.
        reconstructed: the number of held-out images to invert; None for all.

        If not all images are used, they are chosen with a fixed seed. Raises ImageError if there are not
        enough images, LabelError if there is neither a classifier nor an extractor.
        """
        if extractor is None:
            if classifier is None:
                raise LabelError(
                    f"{train.name}: has no labels to train a classifier on; give a feature extractor"
                )
            extractor = classifier
        self.classifier, self.extractor = classifier, extractor
        self.images, self.labels = real.images.numpy(), _labels(real)
        self.names = real.names  # what the held-out images show, or None
        chosen = _choice(train, samples, NEIGHBOUR + 1)
        self.samples = len(chosen)
        self.sample_labels = _labels(train, chosen)
        inverted = _choice(real, reconstructed, 1)
        self.originals, self.original_labels = self.images[inverted], _labels(real, inverted)
        self.features = self.extractor.features(self.images)
        self._train_features = self.extractor.features(train.images.numpy()[chosen])
        self._data = train.name
        self.floor = frechet_distance(self._train_features, self.features)

    @property
    def accuracy(self) -> float:
        """The share of held-out images that the classifier labels correctly.

        Raises LabelError without a classifier or labels.
        """
        if self.labels is None:
            raise self._unlabelled("accuracy")
        return float((self._predict(self.images) == self.labels).mean())

    @cached_property
    def reference(self) -> Scores:
        """The scores of real images: of as many training images as are generated. Their ratio is 1."""
        return self._scores(self._train_features)

    def scores(self, images: np.ndarray) -> Scores:
        """Return the scores of float32 [N, C, S, S]. Compare only sets of equal N.

        Raises ImageError for fewer than 4 images.
        """
        return self._scores(self.extractor.features(images))

    def ratio(self, images: np.ndarray) -> float:
        """Return the Fréchet ratio of float32 [N, C, S, S]. Compare only sets of equal N."""
        return frechet_distance(self.extractor.features(images), self.features) / self.floor

    def agreement(self, images: np.ndarray) -> float:
        """Return the share of samples that the classifier labels as requested.

        Raises LabelError without a classifier or labels.
        """
        if self.sample_labels is None:
            raise self._unlabelled("label agreement")
        return float((self._predict(images) == self.sample_labels).mean())

    def generate(self, schedule: Schedule, backend: Backend, first_seed: int) -> np.ndarray:
        """Return the samples, float32 [N, C, S, S].

        Raises LabelError if the model has classes and the training images have no labels.
        """
        seeds = range(first_seed, first_seed + self.samples)
        return _play(schedule, backend, Batch(seeds, self._model_labels(backend, self.sample_labels)))

    def invert(self, schedule: Schedule, backend: Backend, first_seed: int) -> np.ndarray:
        """Return the states of `originals` at level 80, float32 [N, C, S, S].

        Raises LabelError if the model has classes and the images have no labels.
        """
        seeds = range(first_seed, first_seed + len(self.originals))
        labels = self._model_labels(backend, self.original_labels)
        return _play(schedule, backend, Batch(seeds, labels), self.originals)

    def reconstruct(self, latents: np.ndarray, backend: Backend) -> np.ndarray:
        """Return the images that one step makes of the inverted `originals`, float32 [N, C, S, S]."""
        labels = self._model_labels(backend, self.original_labels)
        return _play(ONE_STEP, backend, Batch(range(len(latents)), labels), latents)

    def reconstruction_error(self, schedule: Schedule, backend: Backend, first_seed: int) -> float:
        """Return the mean squared error of an inversion and one step back, in [0, 1], rounded to uint8."""
        latents = self.invert(schedule, backend, first_seed)
        return float(mean_squared_error(self.reconstruct(latents, backend), self.originals).mean())

    def score(self, schedule: Schedule, backend: Backend, first_seed: int) -> float:
        """Return the figure that a search minimises.

        It is the reconstruction error of an inversion, and the Fréchet ratio of a generation.
        """
        if schedule.from_image:
            return self.reconstruction_error(schedule, backend, first_seed)
        return self.ratio(self.generate(schedule, backend, first_seed))

    @cached_property
    def _radii(self) -> np.ndarray:
        return radii(self.features)

    def _scores(self, features: np.ndarray) -> Scores:
        frechet = frechet_distance(features, self.features)
        kid = kernel_distance(features, self.features)
        precision, recall = precision_recall(self.features, features, real_radii=self._radii)
        return Scores(frechet, frechet / self.floor, kid, precision, recall)

    def _predict(self, images: np.ndarray) -> np.ndarray:
        if self.classifier is None:
            raise LabelError(
                f"{self._data}: label agreement and accuracy need a classifier, and no classifier was trained"
                " on this data"
            )
        return self.classifier.predict(images)

    def _model_labels(self, backend: Backend, labels: np.ndarray | None) -> np.ndarray | None:
        """Return the labels for the model, or None if the model has no classes."""
        if backend.num_classes is None:
            return None
        if labels is None:
            raise self._unlabelled("the quality of a model with classes")
        return labels

    def _unlabelled(self, figure: str) -> LabelError:
        return LabelError(
            f"{self._data}: {figure} cannot be measured without labels; use an npz file with `labels`, or a"
            " folder with one sub-folder per class"
        )


def _choice(data: Dataset, n: int | None, least: int) -> np.ndarray:
    """Return the indices of n images: all in the order of the data, or fewer in random order.

    The order is random because files may be sorted by class. Raises ImageError.
    """
    if n is None or n == len(data):
        return np.arange(len(data))
    if not least <= n <= len(data):
        raise ImageError(
            f"{data.name}: cannot take {n} of its {len(data)} images; give a number from {least} to"
            f" {len(data)}"
        )
    return np.random.default_rng(CHOICE_SEED).permutation(len(data))[:n]


def _labels(data: Dataset, chosen: np.ndarray | None = None) -> np.ndarray | None:
    if data.labels is None:
        return None
    labels = data.labels.numpy()
    return labels if chosen is None else labels[chosen]


def _play(schedule: Schedule, backend: Backend, batch: Batch, x: np.ndarray | None = None) -> np.ndarray:
    """Call `play` with at most BATCH samples at a time."""
    return play_in_parts(partial(play, schedule, backend), BATCH, batch, x)
