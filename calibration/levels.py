"""Where a schedule's intermediate levels should lie: a search on data that nothing was trained on or will be reported on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

from ..runtime.schedule import Schedule, parse_schedule


@dataclass(frozen=True)
class Scored:
    """A schedule, its score (lower is better), and the levels that were filled in."""

    schedule: Schedule
    score: float
    levels: tuple[float, ...]


@dataclass(frozen=True)
class Search:
    """A family of schedules: a text with {0}, {1} … for the levels to choose, and the tuples of levels to try."""

    template: str
    levels: tuple[tuple[float, ...], ...]

    @property
    def nfe(self) -> int:
        return parse_schedule(self.template.format(*self.levels[0])).nfe


# Levels that suit 8×8 digits lie lower than those the authors chose for ImageNet-64 (2.4; 0.1, 1.2; 3, 0.12, 0.4); the grids hold both.
_MIDDLE = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.6, 0.8, 1.2, 1.7, 2.4, 3.4)
_COARSE = (0.2, 0.3, 0.4, 0.6, 1.2, 3.0)
_NOISE, _AMPLIFIED = (0.07, 0.1, 0.15, 0.2, 0.3), (0.4, 0.8, 1.2, 1.8, 3.0, 5.0)
_RISING = (0.5, 0.7, 1.0, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 5.0, 10.0, 15.0)
GENERATION = {
    "ancestral-2": Search("80>{0}>0.002", tuple(product(_MIDDLE))),
    "zigzag-3": Search("80>0.002 +{0} {0}>{1}>0.002", tuple(product(_NOISE, _AMPLIFIED))),
    "mixture-4": Search(
        "80>{0}>0.002 +{1} {1}>{2}>0.002",
        tuple(product(_COARSE, (0.1, 0.15, 0.2, 0.3), (0.4, 0.6, 0.8, 1.2))),
    ),
}
INVERSION = {
    "invert-1": Search("+{0} {0}>80", tuple(product((0.03, 0.05, 0.07, 0.1, 0.14)))),
    "invert-2": Search("+{0} {0}>{1}>80", tuple(product((0.03, 0.05, 0.07, 0.1), _RISING))),
}


def ranked(
    search: Search, score: Callable[[Schedule], float], report: Callable[[Scored], None] = lambda scored: None
) -> list[Scored]:
    """All schedules of a family with their scores, the best (lowest) first. Raises ScheduleError before anything is scored."""
    found = []
    for schedule, levels in [
        (parse_schedule(search.template.format(*levels)), levels) for levels in search.levels
    ]:
        found.append(Scored(schedule, score(schedule), levels))
        report(found[-1])
    return sorted(found, key=lambda scored: scored.score)
