"""Which class an image is of, as the model sees it: the label under which it denoises the image best.

The rule of diffusion classifiers (Li et al. 2023, arXiv 2303.16203): add noise, remove it once under every label, and take the label with
the least squared error over a few draws. It asks no other classifier, so that it also serves where one is under attack.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...errors import NonFiniteError
from ..backends.base import Backend
from ..chain import OnMove
from ..noise import standard_normal
from ..schedule import SIGMA_MAX, SIGMA_MIN, Move
from .size import relative_side

GUESS_DRAW = 2**34  # noise k of an image is drawn with number GUESS_DRAW + k of its seed
LEVEL = 0.7  # at 8×8 pixels: hides small damage and leaves the class. docs/tasks.md has others
DRAWS = 5


def guess_labels(
    backend: Backend,
    images: np.ndarray,
    seeds: Sequence[int],
    num_classes: int,
    on_move: OnMove | None = None,
) -> np.ndarray:
    """int64 [N] in [0, num_classes): DRAWS network calls per class and image. images: float32 [N, C, H, W] in [-1, 1]."""
    level = guess_level(backend.sample_shape)
    move = Move(level, SIGMA_MIN)
    errors = np.zeros((num_classes, len(images)))
    for k in range(DRAWS):
        noise = np.float32(level) * standard_normal(seeds, backend.sample_shape, GUESS_DRAW + k)
        for label in range(num_classes):
            cleaned = backend.play_move(images, noise, move, np.full(len(images), label, np.int64))
            errors[label] += np.square(cleaned - images).mean(axis=(1, 2, 3))
            if on_move:
                on_move(k * num_classes + label, move, cleaned)
    if not np.isfinite(errors).all():
        label, bad = np.argwhere(~np.isfinite(errors))[0]
        raise NonFiniteError(
            f"guessing labels on backend {backend.name} gave NaN or infinity (first in sample {bad}, label {label})"
        )
    return errors.argmin(axis=0)


def guess_level(sample_shape: tuple[int, int, int]) -> float:
    """The noise level at which images [C, H, W] are told apart."""
    return min(LEVEL * relative_side(sample_shape), SIGMA_MAX)
