"""What measured numbers say about the paper's claims (arXiv 2403.18035), in words: pure functions of points, lower y being better.

A point's x is network calls, its spread the standard error of the figure over seeds or images; the choice of data is not in it, and a
figure measured once counts as exact. Two figures are equal where they differ by no
more than the two spreads together, √(a² + b²); that favours whoever is behind, so it is said wherever a verdict rests on it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from .exhibits import Point

REACHED, PARTLY, NOT_REACHED, NOT_MEASURED = "reached", "partly reached", "not reached", "not measured"
FEW = 4  # network calls of a generation that count as few
YARDSTICK = 35  # network calls of EDM, Heun's method in 18 steps, that few-call generation is held against
NO_BASELINE = "no baseline given (--baseline FILE, made by bcm-edge train --objective edm)"

Lines = Mapping[str, Sequence[Point]]  # sampler → its points


@dataclass(frozen=True)
class Claim:
    """A claim, what became of it, and the numbers behind that in sentences."""

    title: str
    verdict: str
    sentences: tuple[str, ...]


def as_good(a: Point, b: Point) -> bool:
    """Whether a is better than b or equal to it within the spread."""
    return a.y <= b.y + tolerance(a, b)


def tolerance(a: Point, b: Point) -> float:
    """The difference up to which two figures are equal; a figure without spread has none."""
    return math.hypot(a.spread or 0, b.spread or 0)


def first_as_good(line: Sequence[Point], target: Point) -> Point | None:
    """The measured point of fewest calls that is as good as the target: nothing is interpolated."""
    return next((point for point in sorted(line, key=lambda p: p.x) if as_good(point, target)), None)


def best_per_call(points: Sequence[Point]) -> list[Point]:
    """The lowest of the points with equal numbers of calls, by calls."""
    return [min((p for p in points if p.x == x), key=lambda p: p.y) for x in sorted({p.x for p in points})]


def generation_claim(bcm: Sequence[Point], baselines: Lines) -> Claim:
    """Few-call generation against Heun's method in 35 calls. Points: Fréchet ratios; baselines: "Heun" and others of the same denoiser."""
    title = f"Generation: BCM in 1 to {FEW} network calls against EDM in {YARDSTICK} (Heun, 18 steps)"
    few = [p for p in best_per_call(bcm) if p.x <= FEW]
    yardstick = next((p for p in baselines.get("Heun", ()) if p.x == YARDSTICK), None)
    if yardstick is None or not few:
        return Claim(
            title,
            NOT_MEASURED,
            (NO_BASELINE if yardstick is None else f"no generation in up to {FEW} calls",),
        )
    edm = f"EDM {_value(yardstick, '.2f')} with {YARDSTICK}"
    reached = first_as_good(few, yardstick)
    shown = reached or min(few, key=lambda p: p.y)
    first = f"{_value(shown, '.2f')} with {_calls(shown)}, {edm}{_within(shown, yardstick)}"
    return Claim(
        title, REACHED if reached else NOT_REACHED, (first, *(_needed(p, baselines, ".2f") for p in few))
    )


def inversion_claim(bcm: Sequence[Point], baselines: Lines) -> Claim:
    """Few-call inversion and generation against both samplers at equal calls. Points: reconstruction errors over all calls, up and down.

    Where a baseline cannot take as few calls as BCM did, it is given the next number that it can.
    """
    title = (
        "Inversion: BCM in few network calls against EDM (Heun) and DDIM in as many, up to the noise and back"
    )
    few = best_per_call(bcm)
    if not any(baselines.values()) or not few:
        return Claim(title, NOT_MEASURED, (NO_BASELINE if few else "no inversion",))
    pairs = [
        (p, name, rival) for p in few for name, line in baselines.items() if (rival := _at_least(line, p.x))
    ]
    if not pairs:
        return Claim(title, NOT_MEASURED, ("no baseline was measured at as many calls, or more",))
    won = [as_good(p, rival) for p, _, rival in pairs]
    verdict = REACHED if all(won) else PARTLY if any(won) else NOT_REACHED
    sentences = []
    for p in few:
        rivals = [
            f"{name} {_value(r, '#.2g')}{f' (with {r.x:g})' if r.x != p.x else ''}{_within(p, r)}"
            for q, name, r in pairs
            if q is p
        ]
        sentences.append(f"with {_calls(p)}: BCM {_value(p, '#.2g')}, {', '.join(rivals)}")
    return Claim(title, verdict, (*sentences, _needed(min(few, key=lambda p: p.y), baselines, "#.2g")))


def rising_claim(points: Sequence[Point], what: str, form: str) -> Claim:
    """Whether each further network call makes the figure better. what: the figure's name; form: how it is written."""
    line = best_per_call(points)
    title = f"More network calls, better {what}"
    if len(line) < 2:
        return Claim(title, NOT_MEASURED, ("fewer than two numbers of calls",))
    steps = list(pairwise(line))
    worse = [
        f"worse from {a.x:g} to {_calls(b)}: {_value(a, form)} to {_value(b, form)}"
        for a, b in steps
        if not as_good(b, a)
    ]
    equal = [
        f"no difference beyond the spread from {a.x:g} to {_calls(b)}"
        for a, b in steps
        if as_good(b, a) and as_good(a, b)
    ]
    course = ", ".join(f"{format(p.y, form)} with {p.x:g}" for p in line)
    gained = not as_good(line[0], line[-1])
    verdict = NOT_REACHED if worse or not gained else PARTLY if equal else REACHED
    return Claim(title, verdict, (course, *worse, *equal))


def _at_least(line: Sequence[Point], calls: float) -> Point | None:
    return min((p for p in line if p.x >= calls), key=lambda p: p.x, default=None)


def _needed(target: Point, baselines: Lines, form: str) -> str:
    """How many calls each baseline takes to be as good."""
    found = {name: first_as_good(line, target) for name, line in baselines.items() if line}
    said = [
        f"{name} from {_calls(p)}" if p else f"{name} with no measured number" for name, p in found.items()
    ]
    return f"as good as BCM with {_calls(target)} ({format(target.y, form)}): {', '.join(said)}"


def _within(a: Point, b: Point) -> str:
    equal = as_good(a, b) and as_good(b, a) and a.y != b.y
    return ": equal within the spread" if equal else ""


def _value(point: Point, form: str) -> str:
    return format(point.y, form) + (f" ± {format(point.spread, form)}" if point.spread else "")


def _calls(point: Point) -> str:
    return f"{point.x:g} call{'' if point.x == 1 else 's'}"
