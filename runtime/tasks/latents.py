"""Latents between two latents, and near a latent.

Latents are float32 [N, C, H, W] of about unit variance, as `invert` returns them. High-dimensional noise lies
near a sphere, and the straight line between two latents passes through its inside, where the model was not
trained. So directions follow the great circle (Shoemake 1985), and norms a straight line:

    slerp(a, b, f) = ((1 - f) |a| + f |b|) · (sin((1 - f) θ) â + sin(f θ) b̂) / sin θ,    cos θ = â · b̂
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...errors import InputError
from ..noise import VARIATION_DRAW, standard_normal

_PARALLEL = (
    1e-6  # sin θ below which two directions are equal or opposite, so that no one great circle joins them
)


# A latent outside these limits is called far from noise. The latents of test images with their labels lie
# inside; docs/tasks.md has the measurement. The lower limit is far below 1: the emoji model inverts images to
# latents of less variance, which still give the images again.
LARGEST_MEAN = 0.4
DEVIATIONS = 0.25, 1.3


def far_from_noise(latents: np.ndarray) -> np.ndarray:
    """Return for each latent whether its mean or its standard deviation is far from those of noise: bool [N].

    latents: float32 [N, C, H, W]. Noise has mean 0 and standard deviation 1.
    """
    rows = latents.reshape(len(latents), -1).astype(np.float64)
    smallest, largest = DEVIATIONS
    deviation = rows.std(axis=1)
    return (deviation < smallest) | (deviation > largest) | (np.abs(rows.mean(axis=1)) > LARGEST_MEAN)


def slerp(a: np.ndarray, b: np.ndarray, fractions: np.ndarray) -> np.ndarray:
    """Return latents from a (fraction 0, to the last bit) to b (fraction 1), float32 [N, F, C, H, W].

    a, b: float32 [N, C, H, W]. fractions: [F] in [0, 1]. Where a and b have the same or the opposite
    direction, the latents follow the straight line.
    """
    rows_a, rows_b = (x.reshape(len(x), 1, -1).astype(np.float64) for x in (a, b))
    f = np.asarray(fractions, np.float64)[:, None]  # [F, 1] against [N, 1, D]
    norm_a, norm_b = (np.linalg.norm(x, axis=2, keepdims=True) for x in (rows_a, rows_b))
    unit_a, unit_b = rows_a / np.maximum(norm_a, 1e-12), rows_b / np.maximum(norm_b, 1e-12)
    angle = np.arccos(np.clip((unit_a * unit_b).sum(axis=2, keepdims=True), -1, 1))
    sine = np.sin(angle)
    arc = (
        ((1 - f) * norm_a + f * norm_b)
        * (np.sin((1 - f) * angle) * unit_a + np.sin(f * angle) * unit_b)
        / np.maximum(sine, _PARALLEL)
    )
    path = np.where(sine > _PARALLEL, arc, (1 - f) * rows_a + f * rows_b)
    return path.reshape(len(a), len(f), *a.shape[1:]).astype(np.float32)


def nearby(latents: np.ndarray, strength: float, seeds: Sequence[int], count: int) -> np.ndarray:
    """Return `count` latents at an angle of strength · 90° from each latent, of the same norm: [N, count, C,
    H, W].

    latents: float32 [N, C, H, W]. strength: in [0, 1]; 0 gives the latents themselves, 1 fresh noise of their
    norm.
    seeds: one per latent. Raises InputError.
    """
    if not 0 <= strength <= 1:
        raise InputError(f"strength must lie in [0, 1], not {strength}")
    draws = [standard_normal(seeds, latents.shape[1:], VARIATION_DRAW + k) for k in range(count)]
    fresh = np.stack(draws, axis=1)
    flat = latents.reshape(len(latents), 1, -1).astype(np.float64)
    away = fresh.reshape(len(latents), count, -1).astype(np.float64)
    norm = np.linalg.norm(flat, axis=2, keepdims=True)
    unit = flat / np.maximum(norm, 1e-12)
    away -= (away * unit).sum(
        axis=2, keepdims=True
    ) * unit  # only the part at a right angle to the latent remains
    away *= norm / np.linalg.norm(away, axis=2, keepdims=True)
    turned = np.cos(strength * np.pi / 2) * flat + np.sin(strength * np.pi / 2) * away
    return turned.reshape(len(latents), count, *latents.shape[1:]).astype(np.float32)
