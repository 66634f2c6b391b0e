"""Measures of restyling, on held-out pairs: two images of the same thing in two classes.

The first image of a pair is restyled to the class of the second, and compared with the second. So are

- the first image itself, and a random image of the class of the second;
- the result of re-noising (SDEdit, Meng et al. 2021, arXiv 2108.01073) with as many network calls: noise of a
  level is added to the first image, and removed under the class of the second, either straight down or with
  fresh noise between the calls. Level and form are chosen on the pairs of every CHOOSING-th name, which are
  not measured.

Common arguments are those of task_measures.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..runtime.pipeline import BCM
from ..runtime.pixels import mean_squared_error
from ..runtime.schedule import ONE_STEP, SIGMA_MAX, SIGMA_MIN, Schedule, parse_schedule
from .quality import Judge
from .task_measures import Report, say

CHOOSING = 4
MOST_PAIRS = 600  # measured pairs; if there are more, they are chosen with a fixed seed
CHOICE_SEED = 0
LEVELS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, SIGMA_MAX)  # at which re-noising is tried
INPUT, RANDOM = "the input itself", "a random image of the class"
LEAST, AS_OFTEN = "re-noising, least error", "re-noising, in the class as often"


@dataclass(frozen=True)
class Pairs:
    """Pairs of images of the same thing in two classes."""

    # float32 [P, C, H, W] in [-1, 1]
    inputs: np.ndarray
    truths: np.ndarray
    # the classes of both, int64 [P]
    labels: np.ndarray
    targets: np.ndarray
    # what both show
    names: tuple[str, ...]

    def __len__(self) -> int:
        """The number of pairs."""
        return len(self.names)

    def part(self, rows: np.ndarray) -> Pairs:
        """Return some of the pairs. rows: int64 [n]."""
        names = tuple(self.names[row] for row in rows)
        return Pairs(self.inputs[rows], self.truths[rows], self.labels[rows], self.targets[rows], names)


@dataclass(frozen=True)
class Restyled:
    """The figures of the results of one method."""

    method: str
    # None for methods without a network
    schedule: Schedule | None
    # mean squared error to the true images, and its standard error over the names
    error: float
    spread: float
    # mean Euclidean distance of the features to those of the true images
    distance: float
    # the share in which the judge's classifier sees the new class; None without a classifier
    agreement: float | None
    # the share that has a smaller error than the input itself
    nearer: float


def held_out_pairs(judge: Judge) -> Pairs:
    """Return all ordered pairs of held-out images with one name and two classes, sorted by name and class.

    If a class has several images of a name, the first one is used.
    """
    drawings: dict[str, dict[int, int]] = {}
    if judge.names is not None and judge.labels is not None:
        for row, (name, label) in enumerate(zip(judge.names, judge.labels.tolist(), strict=True)):
            drawings.setdefault(name, {}).setdefault(label, row)
    pairs = [
        (name, own[a], own[b])
        for name, own in sorted(drawings.items())
        for a in sorted(own)
        for b in sorted(own)
        if a != b
    ]
    first = np.array([row for _, row, _ in pairs], np.int64)
    second = np.array([row for _, _, row in pairs], np.int64)
    labels = np.zeros(len(judge.images), np.int64) if judge.labels is None else judge.labels
    names = tuple(name for name, _, _ in pairs)
    return Pairs(judge.images[first], judge.images[second], labels[first], labels[second], names)


def measured_pairs(pairs: Pairs) -> tuple[Pairs, Pairs]:
    """Return the pairs on which re-noising is chosen, and at most MOST_PAIRS others, which are measured."""
    number = {name: index for index, name in enumerate(dict.fromkeys(pairs.names))}
    choosing = np.array([number[name] % CHOOSING == 0 for name in pairs.names], bool)
    others = np.flatnonzero(~choosing)
    if len(others) > MOST_PAIRS:
        others = np.sort(np.random.default_rng(CHOICE_SEED).permutation(others)[:MOST_PAIRS])
    return pairs.part(np.flatnonzero(choosing)), pairs.part(others)


def measure_restyling(
    bcm: BCM, judge: Judge, pairs: Pairs, seed: int, report: Report | None = None
) -> list[Restyled]:
    """Measure the input itself, a random image of the class, and restyling in several ways (`ways`).

    Each restyling is followed by re-noising with as many network calls: the one with the least error, and if
    there is a classifier, the one with the least error of those that reach the new class as often.

    pairs: of at least two names (see `measured_pairs`).
    """
    choosing, measured = measured_pairs(pairs)
    figures = Figures(judge, measured)
    rows = [
        figures.of(INPUT, None, measured.inputs),
        figures.of(RANDOM, None, _random_images(judge, measured, seed)),
    ]
    trial = Figures(judge, choosing)
    for up, down in ways(bcm):
        schedule = up + down
        say(report, f"restyling: {schedule.nfe} calls")
        rows.append(figures.of("restyle", schedule, _restyled(bcm, measured, up, down, seed)))
        reached = trial.of("", None, _restyled(bcm, choosing, up, down, seed)).agreement
        tried = [
            trial.of("", candidate, _renoised(bcm, choosing, candidate, seed))
            for candidate in renoising(schedule.nfe)
        ]
        for method, chosen in _chosen(tried, reached).items():
            assert chosen.schedule
            rows.append(figures.of(method, chosen.schedule, _renoised(bcm, measured, chosen.schedule, seed)))
    return rows


def ways(bcm: BCM) -> list[tuple[Schedule, Schedule]]:
    """Return pairs of schedules to noise and back, in the order of network calls.

    They are each inversion of the model with one step back, and the longest with the longest schedule back.
    """
    schedules = sorted(map(bcm.schedule, bcm.schedules), key=lambda schedule: schedule.nfe)
    inversions = [schedule for schedule in schedules if schedule.inverts]
    longest = next(schedule for schedule in reversed([ONE_STEP, *schedules]) if schedule.generates)
    in_one_step = [(inversion, ONE_STEP) for inversion in inversions]
    if not inversions or longest.nfe == 1:
        return in_one_step
    return [*in_one_step, (inversions[-1], longest)]


def renoising(calls: int) -> list[Schedule]:
    """Return the schedules of re-noising with a number of network calls: each form at each of LEVELS."""
    programs = []
    for level in LEVELS:
        levels = [float(f"{each:.3g}") for each in np.geomspace(level, SIGMA_MIN, calls + 1)[:-1]]
        down = ">".join(f"{each:g}" for each in [*levels, SIGMA_MIN])
        programs.append(f"+{level:g} {down}")
        if calls > 1:
            programs.append(" ".join(f"+{each:g} {each:g}>{SIGMA_MIN}" for each in levels))
    return [parse_schedule(program) for program in programs]


def _chosen(tried: Sequence[Restyled], reached: float | None) -> dict[str, Restyled]:
    """Return method → the best of the trials with re-noising. reached: the agreement of restyling."""
    as_often = [trial for trial in tried if reached is not None and (trial.agreement or 0) >= reached]
    groups = {LEAST: tried, AS_OFTEN: as_often}
    return {method: min(trials, key=lambda trial: trial.error) for method, trials in groups.items() if trials}


class Figures:
    """Computes the figures of results for pairs."""

    def __init__(self, judge: Judge, pairs: Pairs) -> None:
        self._judge, self._pairs = judge, pairs
        self._features = judge.extractor.features(pairs.truths)
        self._own_errors = mean_squared_error(pairs.inputs, pairs.truths)

    def of(self, method: str, schedule: Schedule | None, images: np.ndarray) -> Restyled:
        """Return the figures of float32 [P, C, H, W]."""
        errors = mean_squared_error(images, self._pairs.truths)
        names = np.array(self._pairs.names)
        by_name = [errors[names == name].mean() for name in dict.fromkeys(self._pairs.names)]
        features = self._judge.extractor.features(images)
        agreement = None
        if self._judge.classifier is not None:
            agreement = float((self._judge.classifier.predict(images) == self._pairs.targets).mean())
        return Restyled(
            method,
            schedule,
            float(errors.mean()),
            float(np.std(by_name, ddof=1) / np.sqrt(len(by_name))) if len(by_name) > 1 else 0.0,
            float(np.linalg.norm(features - self._features, axis=1).mean()),
            agreement,
            float((errors < self._own_errors).mean()),
        )


def _restyled(bcm: BCM, pairs: Pairs, up: Schedule, down: Schedule, seed: int) -> np.ndarray:
    labels: dict[str, Any] = {"labels": pairs.labels, "to": pairs.targets}
    return bcm.restyle(pairs.inputs, **labels, inversion=up, schedule=down, seed=seed)


def _renoised(bcm: BCM, pairs: Pairs, schedule: Schedule, seed: int) -> np.ndarray:
    return bcm.restore(pairs.inputs, schedule=schedule, labels=pairs.targets, seed=seed)


def _random_images(judge: Judge, pairs: Pairs, seed: int) -> np.ndarray:
    """Return for each pair a held-out image of its second class, of another thing if there is one."""
    assert judge.names is not None and judge.labels is not None
    random, names = np.random.default_rng(seed), np.array(judge.names)
    rows = []
    for target, name in zip(pairs.targets, pairs.names, strict=True):
        of_class = np.flatnonzero(judge.labels == target)
        others = of_class[names[of_class] != name]
        rows.append(random.choice(others if len(others) else of_class))
    return judge.images[rows]
