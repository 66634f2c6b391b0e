"""Compare measured numbers with the claims of the paper (arXiv 2403.18035), in words.

All functions are pure functions of points. The x of a point is a number of network calls. Its y is a figure
of which lower is better. Its spread is the standard error over seeds or images; it does not cover the choice
of the data. A figure that was measured once counts as exact.

Two figures count as equal if they differ by at most √(a² + b²), where a and b are their spreads. This rule
favours the worse one, so the sentences mention each equality that a verdict depends on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from .exhibits import Point

REACHED, PARTLY, NOT_REACHED, NOT_MEASURED = "reached", "partly reached", "not reached", "not measured"
FEW = 4  # the most network calls of few-call generation
YARDSTICK = 35  # network calls of the comparison with few-call generation: EDM, Heun's method in 18 steps
NO_BASELINE = (
    "no baseline was given; make one with bcm-edge train --objective edm and pass it with --baseline FILE"
)

Lines = Mapping[str, Sequence[Point]]  # sampler → its points


@dataclass(frozen=True)
class Claim:
    """A claim of the paper, a verdict on it, and sentences with the numbers behind the verdict."""

    title: str
    # one of REACHED, PARTLY, NOT_REACHED, NOT_MEASURED
    verdict: str
    sentences: tuple[str, ...]
    # the part of the claim that was reached, such as "with 3 and 4 calls, not with 1 and 2"; "" for all of it
    scope: str = ""
    # what limits the comparison behind the verdict
    caveat: str = ""

    @property
    def answer(self) -> str:
        """The verdict in words, with its scope."""
        return f"{REACHED} {self.scope}" if self.scope else self.verdict


def as_good(a: Point, b: Point) -> bool:
    """Return whether `a` is better than `b` or equal to it within the spread."""
    return a.y <= b.y + tolerance(a, b)


def tolerance(a: Point, b: Point) -> float:
    """Return the largest difference at which two figures are equal. A figure without a spread is exact."""
    return math.hypot(a.spread or 0, b.spread or 0)


def first_as_good(line: Sequence[Point], target: Point) -> Point | None:
    """Return the point of fewest calls that is as good as the target, or None. Nothing is interpolated."""
    by_calls = sorted(line, key=lambda point: point.x)
    return next((point for point in by_calls if as_good(point, target)), None)


def best_per_call(points: Sequence[Point]) -> list[Point]:
    """Return the lowest point of each number of calls, in the order of calls."""
    best: dict[float, Point] = {}
    for point in sorted(points, key=lambda point: point.x):
        if point.x not in best or point.y < best[point.x].y:
            best[point.x] = point
    return list(best.values())


def computation_caveat(bcm: float, baseline: float, initialised: bool = False) -> str:
    """Return a caveat about training with unequal computation; "" if it was equal.

    bcm, baseline: the number of images on which the training of each evaluated its network. initialised:
    whether the BCM started from a checkpoint, whose training is not part of the number.
    """
    counts = f"evaluated the network on {baseline:,.0f} images, that of the BCM on {bcm:,.0f}"
    if initialised:
        return (
            f"The training of the baseline {counts}, without the training of the checkpoint that the BCM "
            "started from."
        )
    if bcm == baseline:
        return ""
    return f"The baseline used {'less' if baseline < bcm else 'more'} computation: its training {counts}."


def generation_claim(bcm: Sequence[Point], baselines: Lines, caveat: str = "") -> Claim:
    """Judge few-call generation against Heun's method with 35 calls.

    bcm: Fréchet ratios. baselines: Fréchet ratios of "Heun" and of other samplers of the same denoiser.
    caveat: of the comparison.
    """
    title = f"Generation: BCM in 1 to {FEW} network calls against EDM in {YARDSTICK} (Heun, 18 steps)"
    few = [point for point in best_per_call(bcm) if point.x <= FEW]
    yardstick = next((point for point in baselines.get("Heun", ()) if point.x == YARDSTICK), None)
    if yardstick is None:
        return Claim(title, NOT_MEASURED, (NO_BASELINE,))
    if not few:
        return Claim(title, NOT_MEASURED, (f"no generation schedule has at most {FEW} network calls",))
    reached = [point for point in few if as_good(point, yardstick)]
    missed = [point for point in few if point not in reached]
    shown = reached[0] if reached else min(few, key=lambda point: point.y)
    ours = f"{_value(shown, '.2f')} with {_calls(shown)}"
    edm = f"EDM {_value(yardstick, '.2f')} with {YARDSTICK}"
    first = f"{ours}, {edm}{_within(shown, yardstick)}"
    needed = (_needed(point, baselines, ".2f") for point in few)
    verdict, scope = REACHED if reached else NOT_REACHED, ""
    if reached and missed:
        verdict, scope = PARTLY, f"{_with_calls(reached)}, not {_with_calls(missed, unit='')}"
    return Claim(title, verdict, (first, *needed), scope, caveat)


def inversion_claim(bcm: Sequence[Point], baselines: Lines, caveat: str = "") -> Claim:
    """Judge few-call inversion and generation against the baselines with as many calls.

    Points: reconstruction errors over the calls of inversion and generation together. A baseline that cannot
    have the same number of calls gets the next larger number that was measured. caveat: of the
    comparison.
    """
    title = "Inversion and reconstruction: BCM in few network calls against EDM (Heun) and DDIM in as many"
    few = best_per_call(bcm)
    if not few:
        return Claim(title, NOT_MEASURED, ("no inversion was measured",))
    if not any(baselines.values()):
        return Claim(title, NOT_MEASURED, (NO_BASELINE,))
    won, sentences = [], []
    for point in few:
        rivals = _rivals(point, baselines)
        won += [as_good(point, rival) for rival in rivals.values()]
        ours = f"with {_calls(point)}: BCM {_value(point, '#.2g')}"
        sentences.append(", ".join([ours, *(_rival(name, rival, point) for name, rival in rivals.items())]))
    if not won:
        return Claim(title, NOT_MEASURED, ("no baseline was measured with as many calls or more",))
    verdict = NOT_REACHED
    if any(won):
        verdict = REACHED if all(won) else PARTLY
    best = min(few, key=lambda point: point.y)
    return Claim(title, verdict, (*sentences, _needed(best, baselines, "#.2g")), caveat=caveat)


def rising_claim(points: Sequence[Point], figure: str, form: str) -> Claim:
    """Judge whether each further network call improves a figure.

    figure: its name. form: the format specification of its values.
    """
    line = best_per_call(points)
    title = f"More network calls, better {figure}"
    if len(line) < 2:
        return Claim(title, NOT_MEASURED, ("fewer than two numbers of network calls were measured",))
    worse, equal = [], []
    for a, b in pairwise(line):
        if not as_good(b, a):
            worse.append(f"worse from {a.x:g} to {_calls(b)}: {_value(a, form)} to {_value(b, form)}")
        elif as_good(a, b):
            equal.append(f"no difference beyond the spread from {a.x:g} to {_calls(b)}")
    course = ", ".join(f"{format(point.y, form)} with {point.x:g}" for point in line)
    improved = not as_good(line[0], line[-1])
    verdict = REACHED
    if worse or not improved:
        verdict = NOT_REACHED
    elif equal:
        verdict = PARTLY
    return Claim(title, verdict, (course, *worse, *equal))


def _rivals(point: Point, baselines: Lines) -> dict[str, Point]:
    """Return baseline → its point with as many calls, or with the next larger number that was measured."""
    rivals = {}
    for name, line in baselines.items():
        enough = [rival for rival in line if rival.x >= point.x]
        if enough:
            rivals[name] = min(enough, key=lambda rival: rival.x)
    return rivals


def _rival(name: str, rival: Point, point: Point) -> str:
    """A baseline's figure beside ours, with its number of calls if that differs."""
    calls = "" if rival.x == point.x else f" (with {rival.x:g})"
    return f"{name} {_value(rival, '#.2g')}{calls}{_within(point, rival)}"


def _needed(target: Point, baselines: Lines, form: str) -> str:
    """Return a text: the number of calls with which each baseline is as good as the target."""
    needed = []
    for name, line in baselines.items():
        if line:
            point = first_as_good(line, target)
            calls = f"from {_calls(point)}" if point else "with no measured number of calls"
            needed.append(f"{name} {calls}")
    return f"as good as BCM with {_calls(target)} ({format(target.y, form)}): {', '.join(needed)}"


def _within(a: Point, b: Point) -> str:
    equal = as_good(a, b) and as_good(b, a) and a.y != b.y
    return ": equal within the spread" if equal else ""


def _value(point: Point, form: str) -> str:
    value = format(point.y, form)
    return f"{value} ± {format(point.spread, form)}" if point.spread else value


def _with_calls(points: Sequence[Point], unit: str = " calls") -> str:
    """Return "with 1 call", "with 1, 3 and 4 calls", …; without a unit "with 1, 3 and 4"."""
    if unit and len(points) == 1:
        return f"with {_calls(points[0])}"
    *others, last = [f"{point.x:g}" for point in points]
    return f"with {', '.join(others)}{' and ' if others else ''}{last}{unit}"


def _calls(point: Point) -> str:
    return f"{point.x:g} call{'' if point.x == 1 else 's'}"
