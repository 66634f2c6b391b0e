"""Where a schedule's intermediate levels should lie: a search on data that nothing was trained on or will be reported on."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ..runtime.schedule import Schedule, parse_schedule


@dataclass(frozen=True)
class Scored:
    """A schedule and its score; lower is better."""

    schedule: Schedule
    score: float


def best_schedule(template: str, levels: Iterable[tuple[float, ...]], score: Callable[[Schedule], float]) -> Scored:
    """The schedule of lowest score among the template with each tuple of levels filled in.

    template: a schedule's text with {0}, {1} … for the levels to choose, as in "80>0.002 +{0} {0}>{1}>0.002".
    """
    schedules = [parse_schedule(template.format(*chosen)) for chosen in levels]
    return min((Scored(schedule, score(schedule)) for schedule in schedules), key=lambda scored: scored.score)
