"""EDM's denoising objective, which trains the baseline (Karras et al., arXiv 2206.00364, eq. 2 and table 1).

    ln t ~ N(-1.2, 1.2²), t clipped to [0.002, 80]      x_t = x0 + t z, z ~ N(0, 1)
    L = λ(t) |D(x_t, t) - x0|² / D                      λ(t) = (t² + σ_d²) / (t σ_d)² = 1 / c_out(t, 0)²

λ gives the error of the raw network F the same weight at every noise level. The division by D, the number of
values of an image, is not part of EDM. Adam is not affected by it, but the bound on the gradient norm then
means the same at every image size.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..model.preconditioning import Denoiser
from ..runtime.schedule import SIGMA_DATA, SIGMA_MAX, SIGMA_MIN

# Mean and standard deviation of ln t.
LOG_MEAN = -1.2
LOG_STD = 1.2


@dataclass(frozen=True)
class Noising:
    """The random numbers of a training step."""

    # Noise levels, float32 [N].
    t: Tensor
    # Noise of the shape of the images.
    z: Tensor

    def to(self, device: torch.device | str) -> Noising:
        """Return the same numbers on a device."""
        return Noising(self.t.to(device), self.z.to(device))

    def of(self, rows: slice) -> Noising:
        """Return the numbers of some samples of the batch."""
        return Noising(self.t[rows], self.z[rows])


def noised(shape: torch.Size, generator: torch.Generator) -> Noising:
    """Draw noise levels and noise for a batch of this shape [N, C, H, W], on the CPU."""
    log_t = LOG_MEAN + LOG_STD * torch.randn(shape[0], generator=generator)
    return Noising(log_t.exp().clamp(SIGMA_MIN, SIGMA_MAX), torch.randn(shape, generator=generator))


class Denoising:
    """The loss of a denoiser."""

    def __init__(self, model: Denoiser) -> None:
        self.model = model

    def __call__(self, images: Tensor, labels: Tensor | None, at: Noising) -> dict[str, Tensor]:
        """Return {"denoising": mean loss of the batch}.

        images: [N, C, H, W] in [-1, 1]. labels: [N] for a class-conditional model, otherwise None.
        """
        weight = (at.t.square() + SIGMA_DATA**2) / (at.t * SIGMA_DATA).square()
        denoised = self.model(images + at.t[:, None, None, None] * at.z, at.t, labels)
        return {"denoising": (weight * (denoised - images).square().flatten(1).mean(1)).mean()}
