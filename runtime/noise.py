"""Noise that depends on a sample's seed alone: never on batch size, position in the batch or backend.

Philox (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3") is keyed by (seed, draw); its raw bits are part of
numpy's compatibility promise, where `Generator.standard_normal` is not, so the Box-Muller transform is done here, in float64. On
one machine a sample's noise is the same to the last bit; between processors and numpy versions, logarithm and cosine may differ by
a rounding of float32.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

# Which draw of a seed is which. An inversion adds its noise with a number of its own, so that inverting an image with the
# seed that generated it does not add the very noise it came from.
START_DRAW = 0  # the latent a generation starts from; the injections after it are draws 1, 2, …
INVERSION_DRAW = 2**32  # what an inversion adds to its image


def standard_normal(seeds: Sequence[int], shape: tuple[int, ...], draw: int) -> np.ndarray:
    """z ~ N(0, 1): float32 [len(seeds), *shape]. Row i is a function of (seeds[i], draw); seeds are in [0, 2**64)."""
    return np.stack([_one(seed, shape, draw) for seed in seeds])


def _one(seed: int, shape: tuple[int, ...], draw: int) -> np.ndarray:
    count = int(np.prod(shape))
    half = (count + 1) // 2
    bits = np.random.Philox(key=np.array([seed, draw], np.uint64)).random_raw(2 * half).reshape(2, half)
    radius, angle = (
        (bits >> np.uint64(11)).astype(np.float64) + 0.5
    ) * 2.0**-53  # uniform in (0, 1), never 0
    radius = np.sqrt(-2 * np.log(radius))
    z = np.concatenate([radius * np.cos(2 * np.pi * angle), radius * np.sin(2 * np.pi * angle)])
    return z[:count].astype(np.float32).reshape(shape)
