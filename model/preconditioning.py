"""Make the consistency function f(x, t, u) of arXiv 2403.18035 from a network F, with σ(t) = t as in EDM.

    f(x, t, u) = c_skip(t, u) x + c_out(t, u) F(c_in(t) x, τ(t), τ(u), label)

    c_skip = (t u + σ_d²) / (t² + σ_d²)      c_out = σ_d (t - u) / √(t² + σ_d²)      c_in = 1 / √(t² + σ_d²)
    τ(s)   = 250 ln s                        σ_d = 0.5

For u = t, c_skip is 1 and c_out is 0, so f(x, t, t) = x exactly. For u > t (inversion), c_out is negative and
large: -79 from 0.07 to 80. The error of the network is multiplied by it. So all of this is computed in
float32 at every precision.

For u = 0, these are the coefficients of EDM's denoiser D(x, t) (arXiv 2206.00364). The denoiser is the
baseline, and uses the same network.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..runtime.schedule import SIGMA_DATA, SIGMA_MIN
from .config import NetworkConfig
from .unet import UNet


def coefficients(t: Tensor, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return (c_skip, c_out, c_in) for noise levels t and u, which have the same shape, in their dtype."""
    variance = t * t + SIGMA_DATA**2
    root = variance.sqrt()
    return (t * u + SIGMA_DATA**2) / variance, SIGMA_DATA * (t - u) / root, 1 / root


def warp(level: Tensor) -> Tensor:
    """Return τ(s) = 1000 · 0.25 · ln s.

    It is computed in float32 as the logarithm times 250. |τ| is up to 1554, so another order of operations
    would round differently.
    """
    return 250 * torch.log(level)


class Preconditioned(nn.Module):
    """Base class of the functions that are made from a network F and the coefficients."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.network = UNet(config)

    @property
    def config(self) -> NetworkConfig:
        """The configuration of the network."""
        return self.network.config


class ConsistencyModel(Preconditioned):
    """The consistency function f(x, t, u) of a BCM.

    x: float32 [N, C, H, W], the state at noise level t.
    t, u: float32 [N], noise levels in [0.002, 80].
    label: int64 [N] for a network with classes, otherwise None.

    Returns float32 [N, C, H, W], the state at noise level u on the same trajectory.
    """

    def forward(self, x: Tensor, t: Tensor, u: Tensor, label: Tensor | None = None) -> Tensor:
        """Return f(x, t, u), float32 [N, C, H, W]."""
        c_skip, c_out, c_in = (c[:, None, None, None] for c in coefficients(t, u))
        return c_skip * x + c_out * self.network(c_in * x, warp(t), warp(u), label)


class Denoiser(Preconditioned):
    """EDM's denoiser D(x, t): the mean of all images x0 from which x = x0 + t z may have been made.

        D(x, t) = c_skip(t, 0) x + c_out(t, 0) F(c_in(t) x, τ(t), τ(0.002), label)

    See arXiv 2206.00364, eq. 7. The second noise level of F is constant, so a BCM and its baseline have the
    same parameters and the same cost.

    x: float32 [N, C, H, W], the state at noise level t.
    t: float32 [N], noise levels in [0.002, 80].
    label: int64 [N] for a network with classes, otherwise None.

    Returns float32 [N, C, H, W].
    """

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        """Return D(x, t), float32 [N, C, H, W]."""
        c_skip, c_out, c_in = (c[:, None, None, None] for c in coefficients(t, torch.zeros_like(t)))
        lowest = warp(torch.full_like(t, SIGMA_MIN))
        return c_skip * x + c_out * self.network(c_in * x, warp(t), lowest, label)
