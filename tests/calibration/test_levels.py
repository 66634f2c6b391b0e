"""The search for the levels of a schedule."""

from __future__ import annotations

import pytest

from bcm_edge.calibration.levels import Search, ranked
from bcm_edge.errors import ScheduleError
from bcm_edge.runtime.schedule import Schedule


def test_schedules_are_ranked_by_their_scores():
    family = Search("80>{0}>0.002", ((0.2,), (1.5,), (4.0,)))
    ranking = ranked(family, lambda schedule: abs(schedule.moves[0].u - 1))
    assert [(str(scored.schedule), scored.score) for scored in ranking] == [
        ("80>1.5>0.002", 0.5),
        ("80>0.2>0.002", 0.8),
        ("80>4>0.002", 3.0),
    ]


def test_several_levels_are_inserted():
    family = Search("80>0.002 +{0} {0}>{1}>0.002", ((0.1, 1), (0.2, 3)))
    best = ranked(family, lambda schedule: -schedule.moves[1].u)[0]
    assert str(best.schedule) == "80>0.002 +0.2 0.2>3>0.002"
    assert best.levels == (0.2, 3)


def test_every_schedule_is_checked_before_the_first_is_scored():
    scored: list[Schedule] = []
    with pytest.raises(ScheduleError):
        ranked(Search("80>{0}>0.002", ((0.2,), (100,))), lambda schedule: scored.append(schedule) or 0)
    assert not scored
