"""The estimate of the remaining time."""

from __future__ import annotations

import pytest

from bcm_edge.training.timing import Estimate


def test_estimate_includes_samples_and_validation():
    estimate = Estimate(steps=10, samples_every=4, eval_every=3, seconds_per_sheet=5.0)
    estimate.add_step(2.0)
    assert estimate.seconds_left(1) == 9 * 2 + 3 * 5  # samples after 4 and 8 steps and at the end
    estimate.seconds_per_eval = 1.0
    assert estimate.seconds_left(1) == 9 * 2 + 3 * 5 + 4 * 1  # validation after 3, 6, 9 and 10 steps
    assert estimate.seconds_left(8) == 2 * 2 + 1 * 5 + 2 * 1
    assert estimate.seconds_left(10) == 5


def test_first_step_does_not_count_later():
    estimate = Estimate(steps=101, samples_every=0, eval_every=0, seconds_per_sheet=0.0)
    estimate.add_step(150.0)
    assert estimate.seconds_left(1) == 100 * 150
    estimate.add_step(1.0)
    estimate.add_step(2.0)
    assert estimate.seconds_left(3) == pytest.approx(98 * 1.5)


def test_no_estimate_from_the_step_that_compiles():
    estimate = Estimate(steps=3, samples_every=0, eval_every=0, seconds_per_sheet=4.0, compiles=True)
    estimate.add_step(60.0)
    assert estimate.seconds_left(1) is None
    estimate.add_step(1.0)
    assert estimate.seconds_left(2) == 1.0 + 4.0
