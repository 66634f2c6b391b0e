"""Samplers of an EDM denoiser, the baselines: Heun's method and DDIM, from noise to images and back.

With σ(t) = t, the probability-flow ODE is dx/dt = (x - D(x, t)) / t.

- Heun: Karras et al. 2022, arXiv 2206.00364, algorithm 1 without churn. Second order; the levels are evenly
  spaced in t^(1/7).
- DDIM: Song et al. 2021, arXiv 2010.02502, eq. 13 and 14. Euler's method on the levels of the linear-beta
  schedule, on which DDPM is trained.

Network calls for N steps:

- Heun generates with 2N - 1 calls. The last step, to level 0, is not corrected, because there is no slope at
  level 0.
- Heun inverts with 2N - 2 calls. The image is taken as the state at level 0.002, the lowest above 0. This
  leaves N - 1 steps, and all of them are corrected.
- DDIM takes N calls in both directions. There is no slope at level 0, so the first step of an inversion uses
  the slope at the level that it goes to. Every other step uses the slope at the level that it starts from.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError, NonFiniteError
from ..runtime.batches import BATCH, slices
from ..runtime.noise import START_DRAW, standard_normal
from ..runtime.schedule import SIGMA_MAX, SIGMA_MIN
from .preconditioning import Denoiser

RHO = 7.0
# The schedule of Ho et al. 2020, arXiv 2006.11239.
DDPM_STEPS = 1000
FIRST_BETA = 1e-4
LAST_BETA = 0.02

# D(x, t): float32 [N, …] and one level for all samples → float32 [N, …]
Denoise = Callable[[Tensor, float], Tensor]
# Slope of the ODE: a state and its level → a tensor like the state
Slope = Callable[[Tensor, Any], Tensor]
Levels = Sequence[float] | np.ndarray


def heun_levels(steps: int) -> np.ndarray:
    """Return EDM's levels (eq. 5): 80 = t_0 > … > t_(N-1) = 0.002 > t_N = 0, for N ≥ 2 steps.

    float64 [steps + 1].
    """
    levels = np.linspace(SIGMA_MAX ** (1 / RHO), SIGMA_MIN ** (1 / RHO), steps) ** RHO
    levels[0], levels[-1] = SIGMA_MAX, SIGMA_MIN
    return np.append(levels, 0.0)


def ddpm_sigmas() -> np.ndarray:
    """Return σ = √(1/ᾱ - 1) after 1, …, 1000 steps of the linear-beta schedule, from 0.01 to 157.

    float64 [1000].
    """
    alpha_bar = np.cumprod(1 - np.linspace(FIRST_BETA, LAST_BETA, DDPM_STEPS))
    return np.sqrt(1 / alpha_bar - 1)


def ddim_levels(steps: int) -> np.ndarray:
    """Return the σ of the linear-beta schedule at evenly spaced steps, rounded to integers: 80 > … > 0.

    The first level belongs to the last step with σ ≤ 80, and is set to 80 exactly, so that all samplers start
    from the same noise. float64 [steps + 1]. Raises InputError for too many steps.
    """
    sigmas = np.append(0.0, ddpm_sigmas())  # by number of steps
    last = int(np.flatnonzero(sigmas <= SIGMA_MAX)[-1])
    if steps > last:
        raise InputError(f"DDIM supports at most {last} steps (levels up to {SIGMA_MAX:g}), got {steps}")
    levels = sigmas[np.round(np.linspace(last, 0, steps + 1)).astype(int)]
    levels[0] = SIGMA_MAX
    return levels


class _Slope:
    """The slope dx/dt of the probability-flow ODE. It counts its network calls."""

    def __init__(self, denoise: Denoise) -> None:
        self.denoise = denoise
        self.calls = 0

    def __call__(self, x: Tensor, t: float) -> Tensor:
        self.calls += 1
        return (x - self.denoise(x, t)) / t


def heun(denoise: Denoise, x: Tensor, levels: Levels) -> tuple[Tensor, int]:
    """Return (the state at levels[-1], the number of network calls), from the state x at levels[0] > 0."""
    slope = _Slope(denoise)
    for t, u in zip(map(float, levels[:-1]), map(float, levels[1:]), strict=True):
        x = heun_step(slope, x, t, u) if u else x + (u - t) * slope(x, t)
    return x, slope.calls


def heun_step(slope: Slope, x: Tensor, t: Any, u: Any) -> Tensor:
    """Return the state at level u after one corrected step from the state x at level t. Two calls of slope.

    t, u: numbers, or tensors of one level per sample that broadcast with x. u > 0.
    """
    d = slope(x, t)
    return x + (u - t) * (d + slope(x + (u - t) * d, u)) / 2


def ddim(denoise: Denoise, x: Tensor, levels: Levels) -> tuple[Tensor, int]:
    """Return (the state at levels[-1], the number of network calls), from the state x at levels[0]."""
    slope = _Slope(denoise)
    for t, u in zip(map(float, levels[:-1]), map(float, levels[1:]), strict=True):
        x = x + (u - t) * slope(x, t or u)
    return x, slope.calls


@dataclass(frozen=True)
class Solver:
    """A sampler with a number of steps. Raises InputError for an unknown name or an invalid number."""

    # "heun" or "ddim".
    name: str
    # At least 2 for heun, and 1 for ddim.
    steps: int

    def __post_init__(self) -> None:
        if self.name not in ("heun", "ddim"):
            raise InputError(f"solver must be heun or ddim, not {self.name!r}")
        fewest = 2 if self.name == "heun" else 1
        if self.steps < fewest:
            raise InputError(f"{self.name} needs at least {fewest} steps, got {self.steps}")
        _ = self.levels  # raises InputError for too many steps

    @property
    def levels(self) -> np.ndarray:
        """The noise levels, 80 > … > 0, float64 [steps + 1]."""
        return heun_levels(self.steps) if self.name == "heun" else ddim_levels(self.steps)

    @property
    def nfe(self) -> int:
        """The number of network calls per generated image."""
        _, calls = self.descend(_identity, torch.zeros(1))
        return calls

    @property
    def inversion_nfe(self) -> int:
        """The number of network calls per inverted image."""
        _, calls = self.ascend(_identity, torch.zeros(1))
        return calls

    def descend(self, denoise: Denoise, x: Tensor) -> tuple[Tensor, int]:
        """Return (the image, the number of network calls), from a state at level 80."""
        return (heun if self.name == "heun" else ddim)(denoise, x, self.levels)

    def ascend(self, denoise: Denoise, x: Tensor) -> tuple[Tensor, int]:
        """Return (the state at level 80, the number of network calls), from an image."""
        levels = self.levels[::-1]
        return heun(denoise, x, levels[1:]) if self.name == "heun" else ddim(denoise, x, levels)

    def generate(
        self, denoiser: Denoiser, seeds: Sequence[int], labels: np.ndarray | None = None
    ) -> np.ndarray:
        """Return images, float32 [N, C, H, W], not clipped, from the same noise as a BCM with these seeds.

        labels: int64 [N] for a network with classes, otherwise None. Raises NonFiniteError.
        """
        starts = np.float32(SIGMA_MAX) * standard_normal(seeds, denoiser.config.sample_shape, START_DRAW)
        return self.regenerate(denoiser, starts, labels)

    def regenerate(
        self, denoiser: Denoiser, states: np.ndarray, labels: np.ndarray | None = None
    ) -> np.ndarray:
        """Return the images of states at level 80, both float32 [N, C, H, W]. Otherwise like `generate`."""
        return _in_batches(self.descend, denoiser, states, labels)

    def invert(self, denoiser: Denoiser, images: np.ndarray, labels: np.ndarray | None = None) -> np.ndarray:
        """Return the states at level 80 of images in [-1, 1], both float32 [N, C, H, W].

        Otherwise like `generate`.
        """
        return _in_batches(self.ascend, denoiser, images, labels)


def _identity(x: Tensor, t: float) -> Tensor:
    return x


@torch.inference_mode()
def _in_batches(
    sample: Callable[[Denoise, Tensor], tuple[Tensor, int]],
    denoiser: Denoiser,
    x: np.ndarray,
    labels: np.ndarray | None,
) -> np.ndarray:
    """Sample BATCH rows of x at a time. Raises NonFiniteError."""
    parts = []
    for rows in slices(len(x), BATCH):
        label = None if labels is None else torch.from_numpy(labels[rows])

        def denoise(x: Tensor, t: float, label: Tensor | None = label) -> Tensor:
            return denoiser(x, torch.full((len(x),), t, dtype=torch.float32), label)

        state, _ = sample(denoise, torch.from_numpy(x[rows]))
        parts.append(state.numpy())
    states = np.concatenate(parts)
    finite = np.isfinite(states).reshape(len(states), -1).all(axis=1)
    if not finite.all():
        first = int(np.argmin(finite))
        raise NonFiniteError(
            f"the denoiser gave NaN or infinity (first in sample {first}); no image was made"
        )
    return states
