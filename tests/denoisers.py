"""Denoisers for the tests of the baselines.

For data N(0, s²) per pixel the best denoiser is D(x, t) = x s² / (s² + t²), and the probability-flow ODE
takes x from level t to level u as x √((s² + u²) / (s² + t²)), which is `gaussian.scale`.
"""

from __future__ import annotations

import torch
from gaussian import S
from networks import TINY, random_model
from torch import Tensor

from bcm_edge.model.preconditioning import Denoiser

BASELINE = {"objective": "edm"}  # the provenance of a checkpoint of a denoiser


def gaussian(x: Tensor, t: float) -> Tensor:
    """Return the mean of the images that have become x at level t, for data N(0, S²)."""
    return x * (S * S / (S * S + t * t))


class GaussianDenoiser(Denoiser):
    """The denoiser of data N(0, S²), with the interface of a network."""

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        assert x.dtype == t.dtype == torch.float32
        return x * (S * S / (S * S + t * t))[:, None, None, None]


def tiny_denoiser() -> Denoiser:
    """Return the tiny network with random weights as a denoiser."""
    model = Denoiser(TINY)
    model.load_state_dict(random_model().state_dict())
    return model.eval().requires_grad_(False)
