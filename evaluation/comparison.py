"""Measure a BCM and its baselines: samples, inversions and latencies over the number of network calls."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..model.preconditioning import Denoiser
from ..model.samplers import Solver
from ..runtime.checks.benchmark import interleave, player
from ..runtime.pixels import mean_squared_error
from ..runtime.schedule import SIGMA_MAX, Schedule, parse_schedule
from .fidelity import psnr, ssim
from .quality import Scores
from .rivals import TITLES, YARDSTICK, Rivals, calls, title

SETS = 3  # sets of seeds
APART = 1_000_000  # distance between the first seeds of two sets
# Baselines of up to this many calls, and YARDSTICK, are measured on all sets. Others, which take long, on
# one.
FEW = 10
MOST_CALLS = 100  # calls of a baseline, both ways together; more would take long, and the BCM uses few
LATENCY_BATCH, LATENCY_SECONDS = 16, 0.6


@dataclass(frozen=True)
class Sampled:
    """The samples of one sampler."""

    # "BCM", "Heun" or "DDIM"
    family: str
    name: str
    # the levels of the schedule, or the number of steps
    program: str
    nfe: int
    # one per set of seeds
    scores: tuple[Scores, ...]
    # the share of samples that the classifier labels as requested; None without classes
    agreement: float | None

    def mean(self, figure: str) -> float:
        """Return the mean of a field of Scores over the sets of seeds."""
        return float(np.mean([getattr(score, figure) for score in self.scores]))

    @property
    def spread(self) -> float | None:
        """The standard error of the mean ratio over the sets of seeds; None for one set."""
        sets = len(self.scores)
        if sets < 2:
            return None
        return float(np.std([score.ratio for score in self.scores], ddof=1) / math.sqrt(sets))


@dataclass(frozen=True)
class Inverted:
    """Figures of held-out images after an inversion and a generation."""

    # the curve that this point belongs to: a sampler, and the way back
    line: str
    name: str
    program: str
    # sum over inversion and generation
    nfe: int
    # in [0, 1], of pixels rounded to uint8, as the authors define it
    mse: float
    # the standard error of the mean of the mse over the images
    error: float
    # the median, in dB
    psnr: float
    # the mean
    ssim: float
    # in units of σ_max
    latent_mean: float
    # in units of σ_max
    latent_std: float


@dataclass(frozen=True)
class Latency:
    """The seconds per image that a schedule takes on a batch."""

    name: str
    batch: int
    # the median over the runs
    seconds: float
    # the first quartile
    low: float
    # the third quartile
    high: float


def sampled(rivals: Rivals) -> list[Sampled]:
    """Measure the samples of every generation schedule of the bundle, and of every baseline."""
    bcm, n = rivals.bcm, rivals.judge.samples
    labels = rivals.judge.sample_labels if bcm.num_classes is not None else None
    rows = []
    for name, schedule in rivals.generations.items():

        def play(first: int, schedule: Schedule = schedule) -> np.ndarray:
            return bcm.generate(n, schedule=schedule, seed=first, labels=labels)

        rows.append(_sampled(rivals, play, SETS, "BCM", name, str(schedule), schedule.nfe))
    for solver, denoiser in rivals.baselines:

        def solve(first: int, solver: Solver = solver, denoiser: Denoiser = denoiser) -> np.ndarray:
            return solver.generate(denoiser, range(first, first + n), labels)

        sets = SETS if solver.nfe <= FEW or solver == YARDSTICK else 1
        rows.append(
            _sampled(rivals, solve, sets, TITLES[solver.name], title(solver), _steps(solver), solver.nfe)
        )
    return rows


def _sampled(
    rivals: Rivals,
    make: Callable[[int], np.ndarray],
    sets: int,
    family: str,
    name: str,
    program: str,
    nfe: int,
) -> Sampled:
    """make: first seed → samples."""
    judge, labelled = rivals.judge, rivals.bcm.num_classes is not None
    rivals.say(f"generation: {judge.samples} images × {sets}, {name} ({calls(nfe)})")
    scores, agreements = [], []
    for number in range(sets):
        images = make(rivals.seed + number * APART)
        scores.append(judge.scores(images))
        if labelled:
            agreements.append(judge.agreement(images))
    agreement = float(np.mean(agreements)) if labelled else None
    return Sampled(family, name, program, nfe, tuple(scores), agreement)


def inverted(rivals: Rivals) -> list[Inverted]:
    """Measure every inversion with every way back, and every baseline of up to MOST_CALLS calls both ways."""
    bcm, originals = rivals.bcm, rivals.judge.originals
    labels = rivals.judge.original_labels if bcm.num_classes is not None else None
    rows = []
    for name, up in rivals.inversions.items():
        for back, down in rivals.returns.items():
            nfe = up.nfe + down.nfe
            rivals.say(f"inversion: {len(originals)} held-out images, {name} and {back} ({calls(nfe)})")
            latents = bcm.invert(originals, inversion=up, seed=rivals.seed, labels=labels)
            images = bcm.generate(latents=latents, schedule=down, seed=rivals.seed, labels=labels)
            names = f"BCM, {back} back", f"{name}, {back}", f"{up} then {down}"
            rows.append(_inverted(names, nfe, originals, latents, images))
    for solver, denoiser in rivals.baselines:
        nfe = solver.inversion_nfe + solver.nfe
        if nfe > MOST_CALLS:
            continue
        rivals.say(f"inversion: {len(originals)} held-out images, {title(solver)} ({calls(nfe)})")
        states = solver.invert(denoiser, originals, labels)
        images = solver.regenerate(denoiser, states, labels)
        names = TITLES[solver.name], title(solver), f"{_steps(solver)} each way"
        rows.append(_inverted(names, nfe, originals, states / np.float32(SIGMA_MAX), images))
    return rows


def _inverted(
    names: tuple[str, str, str],
    nfe: int,
    originals: np.ndarray,
    latents: np.ndarray,
    images: np.ndarray,
) -> Inverted:
    """names: the fields line, name and program."""
    errors, n = mean_squared_error(images, originals), len(originals)
    return Inverted(
        *names,
        nfe,
        mse=float(errors.mean()),
        error=float(errors.std() / math.sqrt(n)),
        psnr=float(np.median(psnr(images, originals))),
        ssim=float(ssim(images, originals).mean()),
        latent_mean=float(latents.mean()),
        latent_std=float(latents.std()),
    )


def latencies(rivals: Rivals) -> list[Latency]:
    """Measure every named schedule of the bundle in turn, on one image and on LATENCY_BATCH images.

    If the backend takes fewer than LATENCY_BATCH images, the larger batch is what it takes.
    """
    schedules = {name: parse_schedule(text) for name, text in rivals.bcm.schedules.items()}
    batches = sorted({1, min(LATENCY_BATCH, rivals.bcm.batch)})
    rivals.say(f"latency: {len(schedules)} schedules in turn, at batch {' and '.join(map(str, batches))}")
    names, runs = [], []
    for name, schedule in schedules.items():
        for batch in batches:
            names.append((name, batch))
            runs.append(player(rivals.bcm.backend, schedule, batch))
    for run in runs:
        run()
    rows = []
    for (name, batch), turns in zip(names, interleave(runs, LATENCY_SECONDS), strict=True):
        median, low, high = np.percentile(np.concatenate(turns), [50, 25, 75]) / batch
        rows.append(Latency(name, batch, float(median), float(low), float(high)))
    return rows


def _steps(solver: Solver) -> str:
    return f"{solver.steps} step{'' if solver.steps == 1 else 's'}"
