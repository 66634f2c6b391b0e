"""The class of an image, as the model sees it: the label under which it denoises the image best.

This is the rule of diffusion classifiers (Li et al. 2023, arXiv 2303.16203): add noise, remove it once under
every label, and take the label with the least squared error over a few draws. No other classifier is
involved, so the rule also works for images that were made to deceive one.

Of an image that is known in part, the error counts only where the result disagrees with what is known. The
trials of a label begin with a plain completion, and each continues from the result of the one before it.
"""

from __future__ import annotations

import numpy as np

from ...errors import NonFiniteError
from ..backends.base import Backend
from ..batches import Batch
from ..calls import AfterMove
from ..chain import Project
from ..noise import GUESS_DRAW, standard_normal
from ..schedule import SIGMA_MAX, SIGMA_MIN, Move
from .size import relative_side

# The noise level for images of 8×8 pixels. It hides small damage and keeps the class; docs/task-levels.md
# compares levels.
LEVEL = 0.7
DRAWS = 5


def guess_labels(
    backend: Backend, num_classes: int, batch: Batch, project: Project, after_move: AfterMove | None = None
) -> np.ndarray:
    """Return labels, int64 [N] in [0, num_classes), with DRAWS network calls per class and image.

    project: returns the image nearest to a result that agrees with what is known; the image itself if it is
    known as a whole (`known_images`). The labels of the batch are not used. Raises NonFiniteError.
    """
    level = guess_level(backend.sample_shape)
    move = Move(level, SIGMA_MIN)
    noises = [
        np.float32(level) * standard_normal(batch.seeds, backend.sample_shape, GUESS_DRAW + draw)
        for draw in range(DRAWS)
    ]
    errors = np.zeros((num_classes, len(batch)))
    for label in range(num_classes):
        labels = np.full(len(batch), label, np.int64)
        image = project(np.zeros_like(noises[0]))
        for noise in noises:
            denoised = backend.play_move(image, noise, move, labels)
            image = project(denoised)
            errors[label] += np.square(denoised - image).mean(axis=(1, 2, 3))
            if after_move:
                after_move(move, denoised)
    if not np.isfinite(errors).all():
        label, sample = np.argwhere(~np.isfinite(errors))[0]
        raise NonFiniteError(
            f"guessing labels on backend {backend.name} gave NaN or infinity "
            f"(first in sample {sample}, label {label})"
        )
    return errors.argmin(axis=0)


def known_images(images: np.ndarray) -> Project:
    """Return the projection on images [N, C, H, W] that are known as a whole."""
    return lambda _: images


def guess_level(sample_shape: tuple[int, int, int]) -> float:
    """Return the noise level at which images [C, H, W] are classified."""
    return min(LEVEL * relative_side(sample_shape), SIGMA_MAX)
