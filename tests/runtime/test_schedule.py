"""Schedules: the text form, its errors, and the properties of a schedule."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bcm_edge import BcmError, parse_schedule
from bcm_edge.runtime.schedule import DEFAULT_SCHEDULES, Inject, Move


def test_schedule_parses_into_moves_and_injections():
    schedule = parse_schedule("80>0.002 +0.1 0.1>1.2>0.002")
    assert schedule.steps == (Move(80, 0.002), Inject(0.1), Move(0.1, 1.2), Move(1.2, 0.002))
    assert (schedule.nfe, schedule.start, schedule.end, schedule.from_image) == (3, 80, 0.002, False)


def test_direction_follows_from_the_levels():
    assert [m.graph for m in parse_schedule("+0.07 0.07>15>80").moves] == ["inverse", "inverse"]
    assert [m.graph for m in parse_schedule("80>2.4>0.002").moves] == ["forward", "forward"]


@pytest.mark.parametrize("text", DEFAULT_SCHEDULES.values())
def test_default_schedules_round_trip(text: str):
    assert str(parse_schedule(text)) == text


@pytest.mark.parametrize(
    ("text", "column", "problem"),
    [
        ("", 1, "empty"),
        ("   ", 1, "empty"),
        ("80", 1, "two levels"),
        ("80>", 4, "missing"),
        ("80>>2", 4, "missing"),
        (">80", 1, "missing"),
        ("80>2.x>0.002", 4, "'2.x' is not a noise level"),
        ("80>90", 4, "outside [0.002, 80]"),
        ("80>0.001", 4, "outside"),
        ("80>nan", 4, "outside"),
        ("80>inf", 4, "outside"),
        ("80>-2", 4, "outside"),
        ("80>80", 4, "does nothing"),
        ("80>2 3>1", 6, "the state is at level 2"),
        ("+0.1", 5, "added noise must be followed by a move, such as '+0.1 0.1>0.002'"),
        ("80>2 +0.1", 10, "added noise must be followed by a move, such as '+0.1 0.1>0.002'"),
        ("+0.1 +0.2 0.2>1", 6, "two injections"),
        ("+0.1 0.2>1", 6, "the state is at level 0.1"),
        ("+ 0.1>1", 2, "missing"),
    ],
)
def test_error_shows_the_column(text: str, column: int, problem: str):
    with pytest.raises(BcmError) as caught:
        parse_schedule(text)
    lines = str(caught.value).split("\n")
    assert problem in lines[0] and f"(column {column})" in lines[0]
    assert lines[2] == "  " + " " * (column - 1) + "^"


def test_schedules_are_joined_if_their_levels_are_equal():
    joined = parse_schedule("+0.07 0.07>15>80") + parse_schedule("80>2.4>0.002")
    assert str(joined) == "+0.07 0.07>15>80>2.4>0.002" and joined.nfe == 4
    with pytest.raises(BcmError, match="starts at level 40"):
        _ = parse_schedule("+0.07 0.07>80") + parse_schedule("40>0.002")


levels = st.floats(0.002, 80, allow_nan=False)


@given(
    st.lists(st.tuples(st.lists(levels, min_size=2, max_size=4, unique=True), levels), min_size=1, max_size=3)
)
def test_text_form_round_trips(parts: list[tuple[list[float], float]]):
    text = " ".join(f"+{chain[0]!r} {'>'.join(map(repr, chain))}" for chain, _ in parts)
    schedule = parse_schedule(text)
    assert parse_schedule(str(schedule)) == schedule
    assert schedule.nfe == sum(len(chain) - 1 for chain, _ in parts)


@given(st.text(alphabet="0123456789.>+ -einfa", max_size=20))
def test_any_text_is_parsed_or_raises_a_bcm_error(text: str):
    try:
        schedule = parse_schedule(text)
    except BcmError:
        return
    assert all(0.002 <= m.t <= 80 and 0.002 <= m.u <= 80 and m.t != m.u for m in schedule.moves)
