"""Distances between sets of features: Fréchet distance, kernel distance, precision and recall."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from bcm_edge.errors import ImageError
from bcm_edge.evaluation import distances
from bcm_edge.evaluation.distances import frechet_distance, kernel_distance, precision_recall


def with_moments(mean: np.ndarray, cov: np.ndarray, n: int = 500) -> np.ndarray:
    """Return n points with exactly this sample mean and covariance."""
    x = np.random.default_rng(3).standard_normal((n, len(mean)))
    x -= x.mean(axis=0)
    x = x @ np.linalg.inv(np.linalg.cholesky(np.cov(x, rowvar=False))).T
    return x @ np.linalg.cholesky(cov).T + mean


def features(n: int) -> st.SearchStrategy[np.ndarray]:
    """Return a strategy for n features of three numbers."""
    return arrays(np.float64, (n, 3), elements=st.floats(-4, 4, width=32))


def test_frechet_distance_of_a_shift_is_its_square():
    x = with_moments(np.zeros(3), np.eye(3))
    assert frechet_distance(x, x + np.array([3, 4, 0])) == pytest.approx(25)


def test_frechet_distance_of_two_scales():
    """For covariances that commute, the distance is Σ (σ_a - σ_b)²."""
    a = with_moments(np.zeros(2), np.diag([1.0, 4.0]))
    b = with_moments(np.zeros(2), np.diag([9.0, 25.0]), n=800)
    assert frechet_distance(a, b) == pytest.approx((1 - 3) ** 2 + (2 - 5) ** 2)


def test_frechet_distance_where_covariances_do_not_commute():
    """For 2×2 matrices tr (AB)^½ = √(tr AB + 2 √det AB); here tr AB = 2 + 18 and det AB = 3 · 9."""
    cov_a, cov_b = np.array([[2.0, 1.0], [1.0, 2.0]]), np.array([[1.0, 0.0], [0.0, 9.0]])
    expected = 4 + 10 - 2 * np.sqrt(20 + 2 * np.sqrt(27))
    a, b = with_moments(np.zeros(2), cov_a), with_moments(np.zeros(2), cov_b)
    assert frechet_distance(a, b) == pytest.approx(expected)


def test_frechet_distance_is_symmetric_and_zero_on_itself():
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((50, 8)), rng.standard_normal((70, 8)) * 2
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a))


def test_frechet_distance_with_features_that_are_always_zero():
    """ReLU features may always be zero. Singular covariances must not give NaN."""
    x = np.zeros((10, 3))
    assert frechet_distance(x, x + 1) == pytest.approx(3)


@given(features(6), features(5), st.floats(-8, 8))
def test_frechet_distance_does_not_depend_on_the_origin(a: np.ndarray, b: np.ndarray, shift: float):
    # Near 0 the distance has the square root of a rounding error.
    shifted = frechet_distance(a + shift, b + shift)
    assert shifted == pytest.approx(frechet_distance(a, b), rel=1e-6, abs=1e-5)


def test_kernel_distance_of_two_pairs_of_points():
    """The kernel is (x·y / 2 + 1)³.

    Within the sets its values are 1³ and 3³. Between them they are 1, 1, 3³ and 2³.
    """
    a, b = np.array([[0.0, 0.0], [1, 1]]), np.array([[1.0, 1.0], [2, 2]])
    assert kernel_distance(a, b) == pytest.approx(1 + 27 - 2 * 37 / 4)


def test_kernel_distance_of_sets_of_two_sizes():
    """The kernel is (x·y + 1)³ in one dimension.

    Its values are 1, 1 and 3³ within the first set, 4³ within the second, and 1, 1, 2³, 4³, 3³ and 7³
    between them.
    """
    a, b = np.array([[0.0], [1], [2]]), np.array([[1.0], [3]])
    assert kernel_distance(a, b) == pytest.approx(29 / 3 + 64 - 2 * 444 / 6)


def test_kernel_distance_of_one_distribution_is_0_on_average():
    rng = np.random.default_rng(0)
    same = [kernel_distance(*rng.standard_normal((2, 60, 8))) for _ in range(60)]
    assert min(same) < -0.01
    assert abs(np.mean(same)) < 0.005
    assert kernel_distance(rng.standard_normal((60, 8)), rng.standard_normal((60, 8)) + 1) > 1


@given(features(6), features(4))
def test_kernel_distance_is_symmetric_and_does_not_depend_on_the_order(a: np.ndarray, b: np.ndarray):
    distance = kernel_distance(a, b)
    assert kernel_distance(b, a) == pytest.approx(distance, rel=1e-9, abs=1e-9)
    assert kernel_distance(a[::-1], b[::-1]) == pytest.approx(distance, rel=1e-9, abs=1e-9)


def test_distances_of_float32_features_are_computed_in_float64():
    a, b = (np.random.default_rng(i).standard_normal((20, 4)).astype(np.float32) + 100 for i in (0, 1))
    for distance in (kernel_distance, frechet_distance):
        assert distance(a, b) == pytest.approx(distance(a.astype(np.float64), b.astype(np.float64)), rel=1e-9)


def test_precision_and_recall_of_a_set_with_itself():
    x = np.random.default_rng(0).standard_normal((40, 5))
    assert precision_recall(x, x) == (1, 1)


def test_precision_and_recall_of_sets_far_apart():
    x = np.random.default_rng(0).standard_normal((40, 5))
    assert precision_recall(x, x + 100) == (0, 0)


def test_samples_of_one_of_two_modes_have_precision_1_and_recall_a_half():
    rng = np.random.default_rng(0)
    modes = rng.standard_normal((2, 200, 2)) + np.array([[[0.0, 0]], [[100, 0]]])
    assert precision_recall(modes.reshape(-1, 2), modes[0]) == (1, 0.5)
    precision, recall = precision_recall(modes.reshape(-1, 2), rng.standard_normal((200, 2)))
    assert precision >= 0.9
    assert 0.45 <= recall <= 0.5


@pytest.mark.parametrize(("k", "expected"), [(1, (0, 0)), (3, (0.5, 1))])
def test_radius_of_a_ball_is_the_distance_to_the_kth_neighbour(k: int, expected: tuple[float, float]):
    """The third neighbours of 0, 1, 2, 3 are at the distances 3, 2, 2 and 3, so the balls cover -3 … 6.

    The first neighbours are at the distance 1, so their balls cover -1 … 4.
    """
    real, generated = np.array([[0.0], [1], [2], [3]]), np.array([[-3.5], [-3], [6], [6.5]])
    assert precision_recall(real, generated, k) == expected


def test_copy_of_a_sample_lies_in_a_ball_of_radius_0():
    """Real samples may be equal, as blank images are.

    With the formula |x|² - 2 x·y + |y|², rounding would put some copies outside.
    """
    real = np.tile(np.random.default_rng(0).standard_normal((20, 64)), (5, 1))
    assert precision_recall(real, np.concatenate([real, real + 1])) == (0.5, 1)


def test_distances_do_not_depend_on_the_block_size(monkeypatch: pytest.MonkeyPatch):
    a, b = np.random.default_rng(0).standard_normal((2, 50, 4))
    whole = kernel_distance(a, b), *precision_recall(a, b)
    monkeypatch.setattr(distances, "BLOCK", 7)
    assert (kernel_distance(a, b), *precision_recall(a, b)) == pytest.approx(whole, rel=1e-12)


def test_too_small_sets_are_refused():
    x = np.zeros((4, 2))
    with pytest.raises(ImageError, match=r"4 and 1.* each set needs 2"):
        kernel_distance(x, x[:1])
    with pytest.raises(ImageError, match=r"3 and 4.* each set needs 4"):
        precision_recall(x[:3], x)
