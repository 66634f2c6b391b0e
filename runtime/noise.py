"""Gaussian noise that depends on the seed of a sample alone, and not on the batch or the backend.

The bits come from the counter-based generator Philox (Salmon et al. 2011, "Parallel random numbers: as easy
as 1, 2, 3"), keyed by (seed, draw). numpy guarantees that these bits stay the same in every version. It does
not guarantee that for `Generator.standard_normal`, so the Box-Muller transform is computed here, in float64.

On one machine the noise of a sample is always the same to the last bit. Between processors and numpy
versions, logarithm and cosine may differ by one rounding of float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# The draws of a seed. Each use of noise has numbers of its own, so that no two of them add the same noise.
START_DRAW = 0  # the latent that a generation starts from; injections after it are draws 1, 2, …
INVERSION_DRAW = 2**32  # the noise that an inversion adds to its image
VARIATION_DRAW = 2**33  # the direction of variation 0 of an image; variation k has draw VARIATION_DRAW + k
GUESS_DRAW = 2**34  # the noise of trial 0 when a label is guessed; trial k has draw GUESS_DRAW + k
DAMAGE_DRAW = 2**35  # the noise that damages an image whose restoration is measured


@dataclass(frozen=True)
class Draw:
    """Noise that has not been drawn yet: sigma · standard_normal(seeds, shape, number).

    A GPU can draw it from the seeds, so that it need not be copied there.
    """

    seeds: Sequence[int]  # one integer in [0, 2**64) per sample
    shape: tuple[int, int, int]  # (C, H, W)
    number: int  # the number of the draw, in [0, 2**64)
    sigma: float  # the standard deviation

    def __len__(self) -> int:
        """The number of samples."""
        return len(self.seeds)

    def values(self) -> np.ndarray:
        """Draw the noise: float32 [N, C, H, W]."""
        return np.float32(self.sigma) * standard_normal(self.seeds, self.shape, self.number)


def values(noise: np.ndarray | Draw) -> np.ndarray:
    """Return noise as an array, float32 [N, C, H, W]. It is drawn now if it is a Draw."""
    return noise.values() if isinstance(noise, Draw) else noise


def standard_normal(seeds: Sequence[int], shape: tuple[int, ...], draw: int) -> np.ndarray:
    """Return z ~ N(0, 1), float32 [len(seeds), *shape]. Row i is a function of (seeds[i], draw).

    seeds: integers in [0, 2**64).
    """
    return np.stack([_sample(seed, shape, draw) for seed in seeds])


def _sample(seed: int, shape: tuple[int, ...], draw: int) -> np.ndarray:
    count = int(np.prod(shape))
    half = (count + 1) // 2
    generator = np.random.Philox(key=np.array([seed, draw], np.uint64))
    bits = generator.random_raw(2 * half).reshape(2, half)
    # 53 random bits each, uniform in (0, 1), never 0
    uniform, angle = ((bits >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
    radius = np.sqrt(-2 * np.log(uniform))
    z = np.concatenate([radius * np.cos(2 * np.pi * angle), radius * np.sin(2 * np.pi * angle)])
    return z[:count].astype(np.float32).reshape(shape)
