"""Samplers of an EDM denoiser, the baselines: Heun's method and DDIM, from noise to image and back.

With σ(t) = t the probability-flow ODE is dx/dt = (x - D(x, t)) / t.

    Heun   Karras et al. 2022, arXiv 2206.00364, algorithm 1 without churn: levels evenly spaced in t^(1/7), second order
    DDIM   Song et al. 2021, arXiv 2010.02502, eq. 13 and 14: Euler's method on the levels of the linear-beta schedule that DDPM trains on

Network calls with N steps. Heun generates in 2N - 1: the last step, to level 0, has no slope at its end to correct with. It inverts in
2N - 2: the image counts as the state at 0.002, the level before 0, so that there are N - 1 steps and all are corrected. DDIM takes N
either way; its first step from an image, at level 0 where there is no slope, takes the slope at the level it goes to, and every
other that of where it stands.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError, NonFiniteError
from ..runtime.batches import BATCH, slices
from ..runtime.noise import START_DRAW, standard_normal
from ..runtime.schedule import SIGMA_MAX, SIGMA_MIN
from .preconditioning import Denoiser

RHO = 7.0
DDPM_STEPS, FIRST_BETA, LAST_BETA = 1000, 1e-4, 0.02  # Ho et al. 2020, arXiv 2006.11239

Denoise = Callable[[Tensor, float], Tensor]  # D(x, t): float32 [N, …] and one level for all → float32 [N, …]


def heun_levels(steps: int) -> np.ndarray:
    """EDM's levels (eq. 5): 80 = t_0 > … > t_(N-1) = 0.002 > t_N = 0 for N ≥ 2 steps; float64 [N + 1]."""
    levels = np.linspace(SIGMA_MAX ** (1 / RHO), SIGMA_MIN ** (1 / RHO), steps) ** RHO
    levels[0], levels[-1] = SIGMA_MAX, SIGMA_MIN
    return np.append(levels, 0.0)


def ddpm_sigmas() -> np.ndarray:
    """σ = √(1/ᾱ - 1) after 1 … 1000 noisings of the linear-beta schedule, float64 [1000], from 0.01 up to 157."""
    alpha_bar = np.cumprod(1 - np.linspace(FIRST_BETA, LAST_BETA, DDPM_STEPS))
    return np.sqrt(1 / alpha_bar - 1)


def ddim_levels(steps: int) -> np.ndarray:
    """80 > … > 0: the schedule's σ at evenly spaced noisings, rounded to whole ones; float64 [steps + 1].

    The first is the last noising with σ ≤ 80, taken as 80 exactly, so that all samplers begin alike.
    """
    sigmas = np.append(0.0, ddpm_sigmas())  # by number of noisings
    last = int(np.flatnonzero(sigmas <= SIGMA_MAX)[-1])
    if steps > last:
        raise InputError(f"DDIM has {last} levels up to {SIGMA_MAX:g}; {steps} steps cannot be taken")
    levels = sigmas[np.round(np.linspace(last, 0, steps + 1)).astype(int)]
    levels[0] = SIGMA_MAX
    return levels


class _Slope:
    """dx/dt of the probability-flow ODE, with a count of the network's calls."""

    def __init__(self, denoise: Denoise) -> None:
        self.denoise, self.calls = denoise, 0

    def __call__(self, x: Tensor, t: float) -> Tensor:
        self.calls += 1
        return (x - self.denoise(x, t)) / t


def heun(denoise: Denoise, x: Tensor, levels: Sequence[float] | np.ndarray) -> tuple[Tensor, int]:
    """The state at levels[-1] from x at levels[0], which is not 0, and the network calls that took."""
    slope = _Slope(denoise)
    for t, to in zip(map(float, levels[:-1]), map(float, levels[1:]), strict=True):
        d = slope(x, t)
        guess = x + (to - t) * d
        x = guess if to == 0 else x + (to - t) * (d + slope(guess, to)) / 2
    return x, slope.calls


def ddim(denoise: Denoise, x: Tensor, levels: Sequence[float] | np.ndarray) -> tuple[Tensor, int]:
    """The state at levels[-1] from x at levels[0], and the network calls that took."""
    slope = _Slope(denoise)
    for t, to in zip(map(float, levels[:-1]), map(float, levels[1:]), strict=True):
        x = x + (to - t) * slope(x, t or to)
    return x, slope.calls


@dataclass(frozen=True)
class Solver:
    """A sampler and its number of steps. name: "heun", of 2 steps or more, or "ddim". Raises InputError."""

    name: str
    steps: int

    def __post_init__(self) -> None:
        if self.name not in ("heun", "ddim"):
            raise InputError(f"solver must be heun or ddim, not {self.name!r}")
        fewest = 2 if self.name == "heun" else 1
        if self.steps < fewest:
            raise InputError(f"{self.name} takes at least {fewest} steps, not {self.steps}")
        _ = self.levels  # too many steps are found here

    @property
    def levels(self) -> np.ndarray:
        """80 > … > 0, float64 [steps + 1]."""
        return heun_levels(self.steps) if self.name == "heun" else ddim_levels(self.steps)

    @property
    def nfe(self) -> int:
        """Network calls per generated image, counted."""
        return self.descend(_nothing, torch.zeros(1))[1]

    @property
    def inversion_nfe(self) -> int:
        """Network calls per inverted image, counted."""
        return self.ascend(_nothing, torch.zeros(1))[1]

    def descend(self, denoise: Denoise, x: Tensor) -> tuple[Tensor, int]:
        """The image from the state at level 80, and the network calls that took."""
        return (heun if self.name == "heun" else ddim)(denoise, x, self.levels)

    def ascend(self, denoise: Denoise, x: Tensor) -> tuple[Tensor, int]:
        """The state at level 80 from an image, and the network calls that took."""
        levels = self.levels[::-1]
        return heun(denoise, x, levels[1:]) if self.name == "heun" else ddim(denoise, x, levels)

    def generate(
        self, denoiser: Denoiser, seeds: Sequence[int], labels: np.ndarray | None = None
    ) -> np.ndarray:
        """Images, float32 [N, C, H, W], not clipped, from the noise that a BCM's generation starts from with these seeds.

        labels: int64 [N], exactly when the network has classes. Raises NonFiniteError.
        """
        starts = np.float32(SIGMA_MAX) * standard_normal(seeds, denoiser.config.sample_shape, START_DRAW)
        return self.regenerate(denoiser, starts, labels)

    def regenerate(
        self, denoiser: Denoiser, states: np.ndarray, labels: np.ndarray | None = None
    ) -> np.ndarray:
        """The images of states at level 80, both float32 [N, C, H, W]; otherwise as `generate`."""
        return _in_batches(self.descend, denoiser, states, labels)

    def invert(self, denoiser: Denoiser, images: np.ndarray, labels: np.ndarray | None = None) -> np.ndarray:
        """The states at level 80 of images in [-1, 1], both float32 [N, C, H, W]; otherwise as `generate`."""
        return _in_batches(self.ascend, denoiser, images, labels)


def _nothing(x: Tensor, t: float) -> Tensor:
    return x


@torch.inference_mode()
def _in_batches(
    play: Callable[[Denoise, Tensor], tuple[Tensor, int]],
    denoiser: Denoiser,
    x: np.ndarray,
    labels: np.ndarray | None,
) -> np.ndarray:
    states = []
    for rows in slices(len(x), BATCH):
        label = None if labels is None else torch.from_numpy(labels[rows])

        def denoise(x: Tensor, t: float, label: Tensor | None = label) -> Tensor:
            return denoiser(x, torch.full((len(x),), t, dtype=torch.float32), label)

        states.append(play(denoise, torch.from_numpy(x[rows]))[0].numpy())
    state = np.concatenate(states)
    finite = np.isfinite(state).reshape(len(state), -1).all(axis=1)
    if not finite.all():
        raise NonFiniteError(
            f"the denoiser gave NaN or infinity (first in sample {int(np.argmin(finite))}); no image was made"
        )
    return state
