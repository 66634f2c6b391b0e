"""Between two latents, and near one. Latents are float32 [N, C, H, W] of about unit variance, as `invert` returns them.

High-dimensional noise lies near a sphere, so that the straight line between two latents leaves what the model was trained on.
Directions therefore go along the great circle (Shoemake 1985), norms along a straight line:

    slerp(a, b, f) = ((1 - f) |a| + f |b|) · (sin((1 - f) θ) â + sin(f θ) b̂) / sin θ,    cos θ = â · b̂
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...errors import InputError
from ..noise import standard_normal

VARIATION_DRAW = 2**33  # variation k of an image is drawn with number VARIATION_DRAW + k of its seed
_PARALLEL = 1e-6  # sin θ below which the great circle is a point, or not one but many


def slerp(a: np.ndarray, b: np.ndarray, fractions: np.ndarray) -> np.ndarray:
    """float32 [N, F, C, H, W]: from a (fraction 0, to the last bit) to b (fraction 1) along the great circle.

    a, b: float32 [N, C, H, W]; fractions: [F] in [0, 1]. Where a and b point the same way, or away from each other, norm and direction
    go along the straight line.
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
    """float32 [N, count, C, H, W]: latents that share cos(strength · 90°) of their direction with the given ones, and their norm.

    strength: 0 gives the latents themselves, 1 fresh noise of their norm. seeds: one per latent. Raises InputError.
    """
    if not 0 <= strength <= 1:
        raise InputError(f"strength must lie in [0, 1], not {strength}")
    fresh = np.stack(
        [standard_normal(seeds, latents.shape[1:], VARIATION_DRAW + k) for k in range(count)], axis=1
    )
    flat = latents.reshape(len(latents), 1, -1).astype(np.float64)
    away = fresh.reshape(len(latents), count, -1).astype(np.float64)
    norm = np.linalg.norm(flat, axis=2, keepdims=True)
    unit = flat / np.maximum(norm, 1e-12)
    away -= (away * unit).sum(axis=2, keepdims=True) * unit  # the part that the latent does not have
    away *= norm / np.linalg.norm(away, axis=2, keepdims=True)
    turned = np.cos(strength * np.pi / 2) * flat + np.sin(strength * np.pi / 2) * away
    return turned.reshape(len(latents), count, *latents.shape[1:]).astype(np.float32)
