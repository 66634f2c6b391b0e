"""The bidirectional consistency objective (arXiv 2403.18035), and the curriculum that sharpens it.

Levels of one stage with N - 1 intervals:  ts[k] = (σ_min^(1/7) + k/(N-1) (σ_max^(1/7) - σ_min^(1/7)))^7,  k = 0 … N-1.
For an image x0, one z ~ N(0, 1) and neighbours t = ts[i+1] > t' = ts[i]:

    x_t = x0 + t z      x_t' = x0 + t' z      target d = f⁻(x_t', t', σ_min)
    consistency:  L_c = PH(f(x_t, t, σ_min), d) / |t - t'|
    soft:         L_s = PH(f⁻(f(x_t, t, u), u, σ_min), d) / |t - u|
    PH(a, b)    = (√(|a - b|² + c²) - c) / √D

f⁻ is f with its parameters held constant: d carries no gradient, but in L_s the gradient flows through f⁻ into f(x_t, t, u).
Unlike the authors' code, which never reaches σ_max = 80, both t and u may be 80: sampling starts there, inversion ends there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import functional_call

from ..model.preconditioning import ConsistencyModel
from ..runtime.schedule import SIGMA_MAX, SIGMA_MIN

RHO = 7.0
LOG_MEAN, LOG_STD = -1.1, 2.0  # of the lognormal density that says how often a level is trained
END_SHARE = (
    1 / 16
)  # of draws at level 80, where all samples start and all inversions end; the density alone gives 1 in 10000
HUBER = 0.004  # c = HUBER · √D; on the digits better than the 0.00054 of iCT and twice that, docs/recipe.md
SOFT_SHARE = 0.5  # of the batch; on all of it the soft term would cost more than the other


def grid(intervals: int) -> Tensor:
    """The levels ts[0] = 0.002 < … < ts[intervals] = 80, float64 [intervals + 1]."""
    low, high = SIGMA_MIN ** (1 / RHO), SIGMA_MAX ** (1 / RHO)
    ts = torch.linspace(low, high, intervals + 1, dtype=torch.float64) ** RHO
    ts[0], ts[-1] = SIGMA_MIN, SIGMA_MAX
    return ts


def interval_probabilities(ts: Tensor) -> Tensor:
    """P(i) ∝ erf((ln ts[i+1] + 1.1) / (2 √2)) - erf((ln ts[i] + 1.1) / (2 √2)), float64 [intervals], summing to 1."""
    edges = torch.erf((ts.log() - LOG_MEAN) / (LOG_STD * math.sqrt(2)))
    mass = edges[1:] - edges[:-1]
    return mass / mass.sum()


def intervals_at(step: int, steps: int, first: int, last: int) -> int:
    """Intervals of the grid at this step: doubling from `first` to `last` in slices of equal length."""
    slices = math.log2(last / first) + 1
    return min(last, first * 2 ** int(step / (steps / slices)))


def pseudo_huber(a: Tensor, b: Tensor, c: float) -> Tensor:
    """(√(|a - b|² + c²) - c) / √D per sample: [N, C, H, W] twice → [N]."""
    difference = (a - b).flatten(1)
    return ((difference.square().sum(1) + c * c).sqrt() - c) / math.sqrt(difference.shape[1])


@dataclass(frozen=True)
class Draw:
    """What a training step takes at random: levels t > t_near and u ≠ t, float32 [N] each, and noise z shaped like the images."""

    t: Tensor
    t_near: Tensor
    u: Tensor
    z: Tensor

    def to(self, device: torch.device | str) -> Draw:
        return Draw(self.t.to(device), self.t_near.to(device), self.u.to(device), self.z.to(device))


def draw(shape: torch.Size, intervals: int, generator: torch.Generator) -> Draw:
    """Levels and noise for a batch of `shape` [N, C, H, W], on the CPU.

    i ~ P gives t = ts[i+1] and t_near = ts[i]. j ~ P gives u = ts[j] or ts[j+1] by a fair coin, so that u reaches both ends; where
    that is t itself, the level below it. A share END_SHARE of the batch has t = 80 instead, and as many have u = 80.
    """
    n = shape[0]
    ts = grid(intervals)
    p = interval_probabilities(ts)
    top = 1 + torch.multinomial(p, n, replacement=True, generator=generator)
    end = torch.multinomial(p, n, replacement=True, generator=generator) + torch.randint(
        2, (n,), generator=generator
    )
    chance = torch.rand(n, generator=generator)
    top[chance < END_SHARE] = intervals
    end[chance > 1 - END_SHARE] = intervals
    end -= (end == top).long()
    levels = ts.float()
    return Draw(levels[top], levels[top - 1], levels[end], torch.randn(shape, generator=generator))


class Objective:
    """The two losses of a model, with f⁻ sharing the model's parameters.

    c of the pseudo-Huber norm grows with the square root of the image's D = C·H·W values, as in iCT (arXiv 2310.14189).
    """

    def __init__(self, model: ConsistencyModel) -> None:
        self.model = model
        # the same storage without gradient: always equal to θ, as a target network without averaging is
        self.frozen = {name: parameter.detach() for name, parameter in model.named_parameters()}
        self.c = HUBER * math.sqrt(math.prod(model.config.sample_shape))

    def __call__(self, images: Tensor, labels: Tensor | None, at: Draw) -> dict[str, Tensor]:
        """Batch means of "consistency" and "soft" for images [N, C, H, W] in [-1, 1] and labels [N] of a class-conditional model.

        The soft term is taken on the first SOFT_SHARE of the batch; its move shares a forward pass with the consistency term.
        """
        n, m = len(images), math.ceil(SOFT_SHARE * len(images))
        low = torch.full_like(at.t, SIGMA_MIN)
        x_t, x_near = (images + level[:, None, None, None] * at.z for level in (at.t, at.t_near))
        first = None if labels is None else labels[:m]
        with torch.no_grad():
            target = self.model(x_near, at.t_near, low, labels)
        both = None if labels is None else torch.cat([labels, labels[:m]])
        moved = self.model(
            torch.cat([x_t, x_t[:m]]), torch.cat([at.t, at.t[:m]]), torch.cat([low, at.u[:m]]), both
        )
        denoised, x_u = moved[:n], moved[n:]
        through = functional_call(self.model, self.frozen, (x_u, at.u[:m], low[:m], first))
        consistency = pseudo_huber(denoised, target, self.c) / (at.t - at.t_near)
        soft = pseudo_huber(through, target[:m], self.c) / (at.t - at.u)[:m].abs()
        return {"consistency": consistency.mean(), "soft": soft.mean()}
