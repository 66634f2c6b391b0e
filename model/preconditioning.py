"""From the raw network F to the consistency function f(x, t, u) (arXiv 2403.18035, EDM noise convention σ(t) = t).

    f(x, t, u) = c_skip(t, u) x + c_out(t, u) F(c_in(t) x, τ(t), τ(u), label)

    c_skip = (t u + σ_d²) / (t² + σ_d²)      c_out = σ_d (t - u) / √(t² + σ_d²)      c_in = 1 / √(t² + σ_d²)
    τ(s)   = 250 ln s                         σ_d = 0.5

u = t gives c_skip = 1 and c_out = 0, so f(x, t, t) = x to the last bit. For u > t (inversion) c_out is negative and large,
-79 from 0.07 to 80, which multiplies the network's error: all of this stays in float32 at every precision.

At u = 0 these are the coefficients of EDM's denoiser D(x, t) (arXiv 2206.00364), the baseline, which the same network makes too.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..runtime.schedule import SIGMA_DATA, SIGMA_MIN
from .config import NetworkConfig
from .unet import UNet


def coefficients(t: Tensor, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(c_skip, c_out, c_in) for levels t and u of one shape, in their dtype."""
    variance = t * t + SIGMA_DATA**2
    root = variance.sqrt()
    return (t * u + SIGMA_DATA**2) / variance, SIGMA_DATA * (t - u) / root, 1 / root


def warp(level: Tensor) -> Tensor:
    """τ(s) = 1000 · 0.25 · ln s. Taken as log, then × 250, in float32: |τ| reaches 1554, so the order of rounding shows."""
    return 250 * torch.log(level)


class Preconditioned(nn.Module):
    """A network F with something around it that knows noise levels."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.network = UNet(config)

    @property
    def config(self) -> NetworkConfig:
        return self.network.config


class ConsistencyModel(Preconditioned):
    """f(x, t, u).

    x: [N, C, H, W] float32 at noise level t; t, u: [N] float32 in [0.002, 80]; label: [N] int64, exactly when the network
    has classes. Returns x_u: [N, C, H, W] float32, the state at noise level u on the same trajectory.
    """

    def forward(self, x: Tensor, t: Tensor, u: Tensor, label: Tensor | None = None) -> Tensor:
        c_skip, c_out, c_in = (c[:, None, None, None] for c in coefficients(t, u))
        return c_skip * x + c_out * self.network(c_in * x, warp(t), warp(u), label)


class Denoiser(Preconditioned):
    """D(x, t), the mean of the images that x = x0 + t z may have come from (EDM, arXiv 2206.00364, eq. 7).

        D(x, t) = c_skip(t, 0) x + c_out(t, 0) F(c_in(t) x, τ(t), τ(0.002), label)

    x: [N, C, H, W] float32 at noise level t; t: [N] float32 in [0.002, 80]; label: [N] int64, exactly when the network has classes.
    Returns [N, C, H, W] float32. F's second level never changes, so a BCM and its baseline have the same parameters and cost.
    """

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        c_skip, c_out, c_in = (c[:, None, None, None] for c in coefficients(t, torch.zeros_like(t)))
        return c_skip * x + c_out * self.network(
            c_in * x, warp(t), warp(torch.full_like(t, SIGMA_MIN)), label
        )
