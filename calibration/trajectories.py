"""What the graphs really see: whole schedules, played on samples of every class in both directions.

Images alone would miss most of it: a network call gets one at the beginning of an inversion, else something between image and
noise at a level of some schedule.
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

MINIMUM = 32  # images; fewer leave the largest activations of rare inputs unseen
BATCH_VALUES = (
    8 * 3 * 32 * 32
)  # of the images of a network call; watching a network holds all of its activations in memory


@dataclass(frozen=True)
class Samples:
    """What trajectories start from. images: float32 [N, C, H, W] in [-1, 1]; labels: int64 [N] or None; source: what they are, for people.

    Noise comes from seeds 0 … N-1.
    """

    images: np.ndarray
    labels: np.ndarray | None
    source: str

    @property
    def digest(self) -> str:
        """sha256 of images and labels."""
        whole = hashlib.sha256(self.images.tobytes())
        whole.update(b"" if self.labels is None else self.labels.tobytes())
        return whole.hexdigest()


def draw_samples(
    images: np.ndarray,
    labels: np.ndarray | None,
    n: int,
    source: str,
    sample_shape: tuple[int, int, int],
    num_classes: int | None,
) -> Samples:
    """n of the given images, spread evenly over their classes.

    Raises ImageError or LabelError if they do not fit the model, CalibrationError if they are too few.
    """
    _check_count(n)
    check_images(images, labels, source, sample_shape, num_classes)
    if len(images) < n:
        raise CalibrationError(f"{source}: has {len(images)} images, {n} are to be used")
    order = np.random.default_rng(0).permutation(len(images))
    if num_classes is None:
        return Samples(images[order[:n]].astype(np.float32), None, source)
    assert labels is not None
    ranks = np.empty(
        len(order), np.int64
    )  # of an image within its class: first one image of every class, then the second ones
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
    """Raises ImageError or LabelError unless these are images, and labels where it needs them, of a model."""
    if images.shape[1:] != sample_shape:
        given, taken = (" × ".join(map(str, shape)) for shape in (images.shape[1:], sample_shape))
        raise ImageError(f"{source}: images of {given}; the model takes {taken}")
    if not np.isfinite(images).all() or np.abs(images).max() > 1.001:
        raise ImageError(f"{source}: images must be finite and lie in [-1, 1]")
    if num_classes is None:
        return
    if labels is None:
        raise LabelError(
            f"{source}: has no labels, and the model has {num_classes} classes; use sub-folders or an npz"
        )
    if labels.min() < 0 or labels.max() >= num_classes:
        raise LabelError(
            f"{source}: has labels {labels.min()} to {labels.max()}; the model has classes 0 to {num_classes - 1}"
        )


def generate_samples(backend: Backend, n: int) -> Samples:
    """n images by the model itself, one call each, over all classes: where no data is at hand."""
    _check_count(n)
    classes = backend.num_classes
    labels = None if classes is None else np.arange(n, dtype=np.int64) * max(1, classes // n) % classes
    batch = Batch(range(n), labels)
    images = [play(ONE_STEP, backend, batch[part]) for part in _parts(n, backend.sample_shape)]
    return Samples(np.clip(np.concatenate(images), -1, 1), labels, "made by the model itself")


def play_all(
    backend: Backend,
    schedules: Sequence[Schedule],
    samples: Samples,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Play every schedule on every sample: generations from noise, inversions from the images. report(calls done, calls in all)."""
    batch = Batch(range(len(samples.images)), samples.labels)
    parts = _parts(len(batch), backend.sample_shape)
    total = sum(schedule.nfe for schedule in schedules) * len(parts)
    calls = iter(range(1, total + 1))
    for schedule in schedules:
        for part in parts:
            x = samples.images[part] if schedule.from_image else None
            play(schedule, backend, batch[part], x, on_move=lambda *_: report(next(calls), total))


def _parts(n: int, sample_shape: tuple[int, int, int]) -> list[slice]:
    """n samples in batches of at most 8, and of at most BATCH_VALUES."""
    return slices(n, max(1, min(8, BATCH_VALUES // math.prod(sample_shape))))


def _check_count(n: int) -> None:
    if n < MINIMUM:
        raise CalibrationError(f"{n} images are too few to calibrate on; the least is {MINIMUM}")
