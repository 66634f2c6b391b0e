"""Search the noise levels of a schedule: score every combination of a grid and take the best.

The scores must come from data that is used neither for training nor for reported results.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

from ..runtime.schedule import Schedule, parse_schedule


@dataclass(frozen=True)
class Scored:
    """A schedule and its score."""

    schedule: Schedule
    score: float  # lower is better
    levels: tuple[float, ...]  # the levels that were put into the template


@dataclass(frozen=True)
class Search:
    """A family of schedules: a template, and the combinations of levels to try."""

    template: str  # a schedule with {0}, {1} … for the levels, as in "80>{0}>0.002"
    levels: tuple[tuple[float, ...], ...]

    @property
    def nfe(self) -> int:
        """The network calls of every schedule of the family."""
        return self.schedule(self.levels[0]).nfe

    def schedule(self, levels: tuple[float, ...]) -> Schedule:
        """Return the template with these levels. Raises ScheduleError if that is not a valid schedule."""
        return parse_schedule(self.template.format(*levels))


# The best levels for 8×8 digits are lower than those the authors chose for ImageNet-64 (2.4; 0.1, 1.2;
# 3, 0.12, 0.4). The grids contain both.
_MIDDLE = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.6, 0.8, 1.2, 1.7, 2.4, 3.4)
_COARSE = (0.2, 0.3, 0.4, 0.6, 1.2, 3.0)
_NOISE = (0.07, 0.1, 0.15, 0.2, 0.3)
_AMPLIFIED = (0.4, 0.8, 1.2, 1.8, 3.0, 5.0)
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
    """Score all schedules of a family and return them, the best (lowest score) first.

    report: called with every schedule once it is scored. Raises ScheduleError, before anything is scored,
    if a combination of levels does not give a valid schedule.
    """
    schedules = [search.schedule(levels) for levels in search.levels]
    scored_schedules = []
    for schedule, levels in zip(schedules, search.levels, strict=True):
        scored = Scored(schedule, score(schedule), levels)
        scored_schedules.append(scored)
        report(scored)
    return sorted(scored_schedules, key=lambda scored: scored.score)
