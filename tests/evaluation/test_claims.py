"""The verdicts and sentences of claims, on literal numbers."""

from __future__ import annotations

from typing import Any

import pytest
from curve_points import line

from bcm_edge.evaluation.claims import (
    Claim,
    as_good,
    best_per_call,
    computation_caveat,
    first_as_good,
    generation_claim,
    inversion_claim,
    rising_claim,
)
from bcm_edge.evaluation.exhibits import Point

BCM = [Point(1, 1.93, 0.06), Point(2, 1.40, 0.09), Point(3, 1.38, 0.09), Point(4, 1.31, 0.05)]
HEUN = [Point(3, 40.0, 1.0), Point(9, 1.45, 0.03), Point(17, 1.20), Point(35, 1.17, 0.04), Point(79, 1.16)]
DDIM = [Point(2, 9.0, 0.5), Point(10, 2.0, 0.1), Point(35, 1.48)]


def test_points_are_equal_within_both_spreads():
    assert as_good(Point(1, 1.30, 0.03), Point(1, 1.25, 0.04))  # √(0.03² + 0.04²) = 0.05
    assert not as_good(Point(1, 1.31, 0.03), Point(1, 1.25, 0.04))
    assert as_good(Point(1, 1.25), Point(1, 1.25))
    assert not as_good(Point(1, 1.2500001), Point(1, 1.25))


def test_first_point_as_good_is_a_measured_one():
    falling = line((20, 1.0), (5, 3.0), (10, 2.0))
    assert first_as_good(falling, Point(4, 2.9)) == Point(10, 2.0)  # not at 5.2 calls, which was not measured
    assert first_as_good(falling, Point(4, 3.0)) == Point(5, 3.0)
    assert first_as_good(falling, Point(4, 0.9)) is None


def test_best_schedule_for_each_number_of_calls():
    assert best_per_call(line((2, 1.5), (1, 3), (2, 1.4))) == line((1, 3), (2, 1.4))


def test_generation_claim_that_is_not_reached():
    assert generation_claim(BCM, {"Heun": HEUN, "DDIM": DDIM}) == Claim(
        "Generation: BCM in 1 to 4 network calls against EDM in 35 (Heun, 18 steps)",
        "not reached",
        (
            "1.31 ± 0.05 with 4 calls, EDM 1.17 ± 0.04 with 35",
            "as good as BCM with 1 call (1.93): Heun from 9 calls, DDIM from 10 calls",
            "as good as BCM with 2 calls (1.40): Heun from 9 calls, DDIM from 35 calls",
            "as good as BCM with 3 calls (1.38): Heun from 9 calls, DDIM with no measured number of calls",
            "as good as BCM with 4 calls (1.31): Heun from 17 calls, DDIM with no measured number of calls",
        ),
    )


def test_generation_claim_names_the_numbers_of_calls_that_reach_it():
    better = generation_claim(
        [*BCM[:2], Point(3, 1.1, 0.01), Point(4, 1.0, 0.01)], {"Heun": HEUN}, "Because."
    )
    assert (better.verdict, better.answer, better.caveat, better.sentences[0]) == (
        "partly reached",
        "reached with 3 and 4 calls, not with 1 and 2",
        "Because.",
        "1.10 ± 0.01 with 3 calls, EDM 1.17 ± 0.04 with 35",
    )
    equal = generation_claim([*BCM[:3], Point(4, 1.20, 0.03)], {"Heun": HEUN})
    assert equal.answer == "reached with 4 calls, not with 1, 2 and 3"
    assert equal.sentences[0] == "1.20 ± 0.03 with 4 calls, EDM 1.17 ± 0.04 with 35: equal within the spread"


def test_generation_claim_that_all_numbers_of_calls_reach():
    claim = generation_claim(line((1, 1.1), (2, 1.0)), {"Heun": HEUN})
    assert (claim.verdict, claim.answer) == ("reached", "reached")


def test_caveat_states_the_computation_of_both_trainings():
    assert computation_caveat(1_344_000.0, 448_000) == (
        "The baseline used less computation: its training evaluated the network on 448,000 images, that of"
        " the BCM on 1,344,000."
    )
    assert computation_caveat(1000, 2000).startswith("The baseline used more computation: ")
    assert computation_caveat(1000, 1000) == ""
    assert computation_caveat(1000, 1000, initialised=True) == (
        "The training of the baseline evaluated the network on 1,000 images, that of the BCM on 1,000,"
        " without the training of the checkpoint that the BCM started from."
    )


def test_generation_claim_counts_at_most_four_calls():
    assert generation_claim([*BCM, Point(5, 0.5)], {"Heun": HEUN}).verdict == "not reached"


@pytest.mark.parametrize("make", [generation_claim, inversion_claim])
def test_claim_without_a_baseline_is_not_measured(make: Any):
    result = make(BCM, {})
    assert result.verdict == "not measured"
    assert result.sentences[0].startswith("no baseline was given")


def test_inversion_claim_compares_with_the_next_number_of_calls():
    ours = line((2, 0.0040), (3, 0.0030), (3, 0.0035), (4, 0.0020))
    rivals = {
        "Heun": line((5, 0.3), (17, 0.003), (33, 0.0001)),
        "DDIM": line((2, 0.9), (4, 0.1), (20, 0.0015)),
    }
    result = inversion_claim(ours, rivals)
    assert result.verdict == "reached"
    assert result.sentences == (
        "with 2 calls: BCM 0.0040, Heun 0.30 (with 5), DDIM 0.90",
        "with 3 calls: BCM 0.0030, Heun 0.30 (with 5), DDIM 0.10 (with 4)",
        "with 4 calls: BCM 0.0020, Heun 0.30 (with 5), DDIM 0.10",
        "as good as BCM with 4 calls (0.0020): Heun from 33 calls, DDIM from 20 calls",
    )


def test_inversion_claim_that_is_partly_or_not_reached():
    rivals = {"DDIM": line((2, 0.9), (4, 0.0010))}
    assert inversion_claim(line((2, 0.004), (4, 0.002)), rivals).verdict == "partly reached"
    assert inversion_claim(line((4, 0.002)), rivals).verdict == "not reached"


@pytest.mark.parametrize(
    ("points", "verdict", "reasons"),
    [
        (line((1, 1.9), (2, 1.4), (3, 1.3)), "reached", ()),
        (line((1, 1.9), (2, 1.4), (3, 1.5)), "not reached", ("worse from 2 to 3 calls: 1.40 to 1.50",)),
        (
            line((1, 1.9), (2, 1.4), (3, 1.41), spread=0.1),
            "partly reached",
            ("no difference beyond the spread from 2 to 3 calls",),
        ),
        (
            line((1, 1.40), (2, 1.41), spread=0.1),
            "not reached",
            ("no difference beyond the spread from 1 to 2 calls",),
        ),
        (line((1, 1.4)), "not measured", None),
    ],
)
def test_claim_that_quality_rises_with_calls(
    points: list[Point], verdict: str, reasons: tuple[str, ...] | None
):
    result = rising_claim(points, "samples", ".2f")
    assert result.verdict == verdict
    assert reasons is None or result.sentences[1:] == reasons


def test_inversion_claim_needs_a_comparable_measurement():
    assert inversion_claim(line((40, 0.1)), {"Heun": line((33, 0.01))}).verdict == "not measured"
