"""The denoising objective of EDM (Karras et al. 2022, arXiv 2206.00364, eq. 2 and table 1), which trains the baseline.

    ln t ~ N(-1.2, 1.2²), t clipped to [0.002, 80]      x_t = x0 + t z, z ~ N(0, 1)
    L = λ(t) |D(x_t, t) - x0|² / D                      λ(t) = (t² + σ_d²) / (t σ_d)² = 1 / c_out(t, 0)²

λ makes the error of the raw network F weigh the same at every level. Division by the D values of an image is ours: Adam does not
see the factor, but the bound on the gradient's norm then means the same at every image size.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..model.preconditioning import Denoiser
from ..runtime.schedule import SIGMA_DATA, SIGMA_MAX, SIGMA_MIN

LOG_MEAN, LOG_STD = -1.2, 1.2  # of the lognormal density that says how often a level is trained


@dataclass(frozen=True)
class Noising:
    """What a training step takes at random: levels t, float32 [N], and noise z shaped like the images."""

    t: Tensor
    z: Tensor

    def to(self, device: torch.device | str) -> Noising:
        return Noising(self.t.to(device), self.z.to(device))


def noised(shape: torch.Size, generator: torch.Generator) -> Noising:
    """Levels and noise for a batch of `shape` [N, C, H, W], on the CPU."""
    log_t = LOG_MEAN + LOG_STD * torch.randn(shape[0], generator=generator)
    return Noising(log_t.exp().clamp(SIGMA_MIN, SIGMA_MAX), torch.randn(shape, generator=generator))


class Denoising:
    """The loss of a denoiser."""

    def __init__(self, model: Denoiser) -> None:
        self.model = model

    def __call__(self, images: Tensor, labels: Tensor | None, at: Noising) -> dict[str, Tensor]:
        """The batch mean as "denoising", for images [N, C, H, W] in [-1, 1] and labels [N] of a class-conditional model."""
        weight = (at.t.square() + SIGMA_DATA**2) / (at.t * SIGMA_DATA).square()
        denoised = self.model(images + at.t[:, None, None, None] * at.z, at.t, labels)
        return {"denoising": (weight * (denoised - images).square().flatten(1).mean(1)).mean()}
