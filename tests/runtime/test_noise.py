"""Noise depends only on the seed of a sample and the number of the draw."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bcm_edge.runtime.noise import INVERSION_DRAW, Draw, standard_normal

SHAPE = (3, 16, 16)


def test_noise_has_fixed_values():
    z = standard_normal([0, 2**64 - 1], (1, 2, 2), 0)
    assert z.dtype == np.float32
    frozen = [2.2844415, -1.5494508, 1.9245853, -0.6637518, -1.4437611, -0.1721021, 0.901327, -0.7967893]
    np.testing.assert_allclose(z.ravel(), frozen, rtol=0, atol=1e-6)


@given(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=8), st.integers(0, 3))
def test_sample_noise_is_bit_identical_alone_and_in_any_batch(seeds: list[int], draw: int):
    together = standard_normal(seeds, SHAPE, draw)
    for row, seed in zip(together, seeds, strict=True):
        assert (row == standard_normal([seed], SHAPE, draw)[0]).all()


def test_noise_is_standard_normal():
    z = standard_normal(range(400), SHAPE, 0).astype(np.float64)
    n = z.size
    assert abs(z.mean()) < 4 / np.sqrt(n)
    assert abs(z.var() - 1) < 4 * np.sqrt(2 / n)
    assert abs((z**4).mean() - 3) < 4 * np.sqrt(96 / n)
    assert np.isfinite(z).all() and 4 < np.abs(z).max() < 7


def test_draws_and_seeds_are_uncorrelated():
    rows = [
        standard_normal([seed], SHAPE, draw).ravel() for seed in (0, 1) for draw in (0, 1, INVERSION_DRAW)
    ]
    correlation = np.corrcoef(rows) - np.eye(len(rows))
    assert np.abs(correlation).max() < 4 / np.sqrt(rows[0].size)


def test_odd_number_of_values():
    assert standard_normal([5], (1, 3, 3), 0).shape == (1, 1, 3, 3)


def test_draw_has_the_values_of_its_seeds_and_number():
    draw = Draw([3, 4], (1, 2, 2), INVERSION_DRAW, 0.5)
    assert len(draw) == 2
    assert draw.values().dtype == np.float32
    assert (draw.values() == np.float32(0.5) * standard_normal([3, 4], (1, 2, 2), INVERSION_DRAW)).all()
