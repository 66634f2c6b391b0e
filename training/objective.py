"""The bidirectional consistency objective (arXiv 2403.18035), and the curriculum that refines its grid.

The grid with N - 1 intervals is ts[k] = (σ_min^(1/7) + k/(N-1) (σ_max^(1/7) - σ_min^(1/7)))^7 for k = 0, …,
N-1. For an image x0, noise z ~ N(0, 1) and neighbouring levels t = ts[i+1] > t' = ts[i]:

    x_t = x0 + t z      x_t' = x0 + t' z      target d = f⁻(x_t', t', σ_min)
    consistency:  L_c = PH(f(x_t, t, σ_min), d) / |t - t'|
    soft:         L_s = PH(f⁻(f(x_t, t, u), u, σ_min), d) / |t - u|
    PH(a, b)    = (√(|a - b|² + c²) - c) / √D

f⁻ is f with constant parameters. So d has no gradient; in L_s, the gradient flows through f⁻ into f(x_t, t,
u).

With a teacher, an EDM denoiser D, x_t' is the state that one step of Heun's method along the probability flow
of the teacher reaches from x_t, as in consistency distillation (arXiv 2303.01469, algorithm 2):

    dx/dt = (x - D(x, t)) / t

Without a teacher, x_t' comes from one of the images that x_t may come from, which makes targets noisy. The
teacher gives the mean of these images.

In the authors' code, levels never reach σ_max = 80. Here, t and u may be 80, because sampling starts there
and inversion ends there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import functional_call

from ..model.preconditioning import ConsistencyModel, Denoiser
from ..model.samplers import heun_step
from ..runtime.schedule import SIGMA_MAX, SIGMA_MIN

RHO = 7.0
# Mean and standard deviation of the density of ln t.
LOG_MEAN = -1.1
LOG_STD = 2.0
# Share of the draws at level 80, where all samples start and all inversions end. The density alone would give
# 1 in 10000.
END_SHARE = 1 / 16
# c = HUBER · √D. On the digits, this is better than iCT's 0.00054 and than 0.008 (docs/recipe.md).
HUBER = 0.004
# Share of the batch for which the soft term is computed. For the whole batch, it would cost more than the
# consistency term.
SOFT_SHARE = 0.5
# Evaluations of the network per image of a batch: two for each term.
EVALUATIONS = 2 + 2 * SOFT_SHARE


def grid(intervals: int) -> Tensor:
    """Return the levels ts[0] = 0.002 < … < ts[intervals] = 80, float64 [intervals + 1]."""
    low, high = SIGMA_MIN ** (1 / RHO), SIGMA_MAX ** (1 / RHO)
    ts = torch.linspace(low, high, intervals + 1, dtype=torch.float64) ** RHO
    ts[0], ts[-1] = SIGMA_MIN, SIGMA_MAX
    return ts


def interval_probabilities(ts: Tensor) -> Tensor:
    """Return the probability of each interval of a grid, float64 [intervals], with the sum 1.

    P(i) ∝ erf((ln ts[i+1] + 1.1) / (2 √2)) - erf((ln ts[i] + 1.1) / (2 √2))
    """
    edges = torch.erf((ts.log() - LOG_MEAN) / (LOG_STD * math.sqrt(2)))
    mass = edges[1:] - edges[:-1]
    return mass / mass.sum()


def intervals_at(step: int, steps: int, first: int, last: int) -> int:
    """Return the number of intervals at a step. It doubles from `first` to `last`, at equal distances."""
    slices = math.log2(last / first) + 1
    return min(last, first * 2 ** int(step / (steps / slices)))


def pseudo_huber(a: Tensor, b: Tensor, c: float) -> Tensor:
    """Return (√(|a - b|² + c²) - c) / √D for each sample, [N], of tensors [N, C, H, W]."""
    difference = (a - b).flatten(1)
    return ((difference.square().sum(1) + c * c).sqrt() - c) / math.sqrt(difference.shape[1])


@dataclass(frozen=True)
class Draw:
    """The random numbers of a training step. t > t_near and u ≠ t, float32 [N]."""

    # Level of the input.
    t: Tensor
    # The level below it on the grid.
    t_near: Tensor
    # Level that the soft term moves to.
    u: Tensor
    # Noise of the shape of the images.
    z: Tensor

    def to(self, device: torch.device | str) -> Draw:
        """Return the same numbers on a device."""
        return Draw(self.t.to(device), self.t_near.to(device), self.u.to(device), self.z.to(device))

    def of(self, rows: slice) -> Draw:
        """Return the numbers of some samples of the batch."""
        return Draw(self.t[rows], self.t_near[rows], self.u[rows], self.z[rows])


def draw(shape: torch.Size, intervals: int, generator: torch.Generator) -> Draw:
    """Draw levels and noise for a batch of this shape [N, C, H, W], on the CPU.

    - t = ts[i+1] and t_near = ts[i] for i ~ P.
    - u is ts[j] or ts[j+1] with equal probability, for j ~ P, so that u reaches both ends. If this is t, u is
      the level below it.
    - A share END_SHARE of the batch gets t = 80 instead, and as many other samples get u = 80.
    """
    n = shape[0]
    ts = grid(intervals)
    p = interval_probabilities(ts)
    top = 1 + torch.multinomial(p, n, replacement=True, generator=generator)
    end = torch.multinomial(p, n, replacement=True, generator=generator)
    end += torch.randint(2, (n,), generator=generator)
    chance = torch.rand(n, generator=generator)
    top[chance < END_SHARE] = intervals
    end[chance > 1 - END_SHARE] = intervals
    end -= (end == top).long()
    levels = ts.float()
    return Draw(levels[top], levels[top - 1], levels[end], torch.randn(shape, generator=generator))


class Objective:
    """The two losses of a model. f⁻ shares the parameters of the model.

    The constant c of the pseudo-Huber norm is proportional to the square root of D = C·H·W, the number of
    values of an image, as in iCT (arXiv 2310.14189).
    """

    def __init__(self, model: ConsistencyModel, teacher: Denoiser | None = None) -> None:
        self.model = model
        self.teacher = teacher
        # The same storage without gradient: always equal to θ, like a target network without averaging.
        self.frozen = {name: parameter.detach() for name, parameter in model.named_parameters()}
        self.c = HUBER * math.sqrt(math.prod(model.config.sample_shape))

    def __call__(self, images: Tensor, labels: Tensor | None, at: Draw) -> dict[str, Tensor]:
        """Return {"consistency": mean loss, "soft": mean loss} of a batch.

        images: [N, C, H, W] in [-1, 1]. labels: [N] for a class-conditional model, otherwise None.

        The soft term is computed for the first SOFT_SHARE of the batch. Its move shares a forward pass with
        the consistency term.
        """
        n, m = len(images), math.ceil(SOFT_SHARE * len(images))
        low = torch.full_like(at.t, SIGMA_MIN)
        x_t = images + at.t[:, None, None, None] * at.z
        with torch.no_grad():
            x_near = self._near(images, x_t, labels, at)
            target = self.model(x_near, at.t_near, low, labels)
        moved = self.model(
            torch.cat([x_t, x_t[:m]]),
            torch.cat([at.t, at.t[:m]]),
            torch.cat([low, at.u[:m]]),
            None if labels is None else torch.cat([labels, labels[:m]]),
        )
        denoised, x_u = moved[:n], moved[n:]
        first_labels = None if labels is None else labels[:m]
        through = functional_call(self.model, self.frozen, (x_u, at.u[:m], low[:m], first_labels))
        consistency = pseudo_huber(denoised, target, self.c) / (at.t - at.t_near)
        soft = pseudo_huber(through, target[:m], self.c) / (at.t - at.u)[:m].abs()
        return {"consistency": consistency.mean(), "soft": soft.mean()}

    def _near(self, images: Tensor, x_t: Tensor, labels: Tensor | None, at: Draw) -> Tensor:
        """Return the states x_t' [N, C, H, W] at the levels t_near."""
        t, t_near = at.t[:, None, None, None], at.t_near[:, None, None, None]
        if self.teacher is None:
            return images + t_near * at.z
        teacher = self.teacher

        def slope(x: Tensor, levels: Tensor) -> Tensor:
            return (x - teacher(x, levels.flatten(), labels)) / levels

        return heun_step(slope, x_t, t, t_near)
