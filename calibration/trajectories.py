"""Play whole schedules on samples of every class, so that a network is observed on the inputs it really gets.

Images alone would not do: only the first network call of an inversion gets an image. Every other call gets
a state between image and noise, at a level of some schedule.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import CalibrationError, ImageError, LabelError
from ..runtime.backends.base import Backend
from ..runtime.batches import Batch, slices
from ..runtime.chain import play
from ..runtime.schedule import ONE_STEP, Schedule

MINIMUM = 32  # images; with fewer, rare inputs with the largest activations would be missed
LARGEST_BATCH = 8  # samples of one network call
# Values of one network call: eight images of 3×32×32. While a network is observed, all its activations are in
# memory, so larger images are played in smaller batches.
BATCH_VALUES = 8 * 3 * 32 * 32
TOLERANCE = 1.001  # largest |value| of an image that counts as one in [-1, 1]


@dataclass(frozen=True)
class Samples:
    """The images that calibration starts from. The noise of sample i comes from seed i."""

    images: np.ndarray  # float32 [N, C, H, W] in [-1, 1]
    labels: np.ndarray | None  # int64 [N], or None for a model without classes
    source: str  # where the images come from, shown to the user

    @property
    def digest(self) -> str:
        """The sha256 of images and labels."""
        sha256 = hashlib.sha256(self.images.tobytes())
        if self.labels is not None:
            sha256.update(self.labels.tobytes())
        return sha256.hexdigest()


def draw_samples(
    images: np.ndarray,
    labels: np.ndarray | None,
    n: int,
    source: str,
    sample_shape: tuple[int, int, int],
    num_classes: int | None,
) -> Samples:
    """Choose n of the images, spread evenly over their classes. The choice is the same every time.

    images: [N, C, H, W] in [-1, 1]; labels: integers [N], or None for a model without classes; source: the
    name of the data set, for messages.

    Raises ImageError or LabelError if the images or labels do not fit the model, and CalibrationError if
    there are fewer than n images, or n is less than MINIMUM.
    """
    _check_count(n)
    check_images(images, labels, source, sample_shape, num_classes)
    if len(images) < n:
        raise CalibrationError(f"{source}: has {len(images)} images, but {n} are requested for calibration")
    order = np.random.default_rng(0).permutation(len(images))
    if num_classes is None:
        return Samples(images[order[:n]].astype(np.float32), None, source)
    assert labels is not None  # checked by check_images
    # Rank every image within its class. Sorted by rank, the first images of all classes come before the
    # second.
    ranks = np.empty(len(order), np.int64)
    for label in np.unique(labels):
        members = order[labels[order] == label]
        ranks[members] = np.arange(len(members))
    chosen = order[np.argsort(ranks[order], kind="stable")][:n]
    return Samples(images[chosen].astype(np.float32), labels[chosen].astype(np.int64), source)


def check_images(
    images: np.ndarray,
    labels: np.ndarray | None,
    source: str,
    sample_shape: tuple[int, int, int],
    num_classes: int | None,
) -> None:
    """Raise ImageError or LabelError unless images and labels fit a model.

    images: finite, [N, *sample_shape], in [-1, 1]. labels: integers [N] from 0 to num_classes - 1; not
    looked at if the model has no classes (num_classes None).
    """
    if images.shape[1:] != sample_shape:
        actual = " × ".join(map(str, images.shape[1:]))
        expected = " × ".join(map(str, sample_shape))
        raise ImageError(f"{source}: images of {actual}; the model takes {expected}")
    if not np.isfinite(images).all() or np.abs(images).max() > TOLERANCE:
        raise ImageError(f"{source}: images must be finite and lie in [-1, 1]")
    if num_classes is None:
        return
    if labels is None:
        raise LabelError(
            f"{source}: has no labels, and the model has {num_classes} classes; use sub-folders or an npz"
        )
    smallest, largest = labels.min(), labels.max()
    if smallest < 0 or largest >= num_classes:
        raise LabelError(
            f"{source}: has labels {smallest} to {largest}; the model has classes 0 to {num_classes - 1}"
        )


def generate_samples(backend: Backend, n: int) -> Samples:
    """Generate n images over all classes with the model itself, in one network call each.

    Raises CalibrationError if n is less than MINIMUM.
    """
    _check_count(n)
    classes = backend.num_classes
    labels = None
    if classes is not None:
        stride = max(1, classes // n)
        labels = np.arange(n, dtype=np.int64) * stride % classes
    batch = Batch(range(n), labels)
    images = [play(ONE_STEP, backend, batch[rows]) for rows in slices(n, _batch_size(backend.sample_shape))]
    return Samples(np.clip(np.concatenate(images), -1, 1), labels, "made by the model itself")


def play_all(
    backend: Backend,
    schedules: Sequence[Schedule],
    samples: Samples,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Play every schedule on every sample: generations from noise, inversions from the images.

    report: called with (network calls done, network calls in all) after each network call.
    """
    batch = Batch(range(len(samples.images)), samples.labels)
    parts = slices(len(batch), _batch_size(backend.sample_shape))
    total = sum(schedule.nfe for schedule in schedules) * len(parts)
    calls = iter(range(1, total + 1))
    for schedule in schedules:
        for rows in parts:
            images = samples.images[rows] if schedule.from_image else None
            play(schedule, backend, batch[rows], images, after_move=lambda *_: report(next(calls), total))


def _batch_size(sample_shape: tuple[int, int, int]) -> int:
    """The number of samples of one network call."""
    return max(1, min(LARGEST_BATCH, BATCH_VALUES // math.prod(sample_shape)))


def _check_count(n: int) -> None:
    if n < MINIMUM:
        raise CalibrationError(f"{n} images are too few to calibrate on; at least {MINIMUM} are needed")
