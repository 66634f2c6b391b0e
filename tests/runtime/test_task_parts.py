"""Parts of tasks, on a model with a known consistency function: latents, projections, traces."""

from __future__ import annotations

import numpy as np
import pytest
from gaussian import SEEDS, SHAPE, GaussianBackend, scale
from hypothesis import given
from hypothesis import strategies as st

from bcm_edge import BcmError, parse_schedule
from bcm_edge.runtime.batches import Batch
from bcm_edge.runtime.chain import play
from bcm_edge.runtime.noise import standard_normal
from bcm_edge.runtime.tasks import constrained, latents, restoration
from bcm_edge.runtime.tasks.constrained import known_brightness, known_means, known_pixels
from bcm_edge.runtime.tasks.trace import trace


def noise(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Standard normal noise, float32."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


# Latents


def test_slerp_follows_the_great_circle():
    a, b = np.zeros((1, 1, 1, 2), np.float32), np.zeros((1, 1, 1, 2), np.float32)
    a[..., 0], b[..., 1] = 3, 1  # at right angles, norms 3 and 1
    middle = latents.slerp(a, b, np.array([0.5]))[0, 0].ravel()
    np.testing.assert_allclose(middle, [2 * np.sqrt(0.5)] * 2, rtol=1e-6)  # norm 2, at 45 degrees


def test_ends_of_slerp_are_bit_identical_to_its_inputs():
    a, b = noise((4, 1, 8, 8), 1), noise((4, 1, 8, 8), 2)
    path = latents.slerp(a, b, np.linspace(0, 1, 5))
    assert path.shape == (4, 5, 1, 8, 8) and path.dtype == np.float32
    assert (path[:, 0] == a).all() and (path[:, -1] == b).all()


def test_slerp_keeps_the_norm_of_noise():
    a, b = noise((1, 1, 32, 32), 1), noise((1, 1, 32, 32), 2)
    middle = latents.slerp(a, b, np.array([0.5]))[0, 0]
    assert middle.std() == pytest.approx(1, abs=0.05)
    assert ((a + b) / 2).std() == pytest.approx(np.sqrt(0.5), abs=0.05)


@pytest.mark.parametrize("factor", [1, -1, 0])
def test_slerp_between_parallel_latents_is_finite(factor: int):
    a = noise((1, 1, 4, 4))
    path = latents.slerp(a, factor * a, np.linspace(0, 1, 5))
    assert np.isfinite(path).all()
    if factor == 1:
        np.testing.assert_allclose(path[0], np.repeat(a, 5, axis=0), rtol=1e-6)


@given(st.floats(0, 1), st.integers(0, 2**64 - 1))
def test_nearby_latents_have_the_requested_norm_and_angle(strength: float, seed: int):
    z = noise((1, 1, 6, 6))
    variations = latents.nearby(z, strength, [seed], 2)
    assert variations.shape == (1, 2, 1, 6, 6)
    for one in variations[0]:
        assert np.linalg.norm(one) == pytest.approx(np.linalg.norm(z), rel=1e-5)
        cosine = float((one * z).sum() / np.linalg.norm(one) / np.linalg.norm(z))
        assert cosine == pytest.approx(np.cos(strength * np.pi / 2), abs=1e-5)


def test_all_nearby_latents_differ():
    z = np.repeat(noise((1, 1, 4, 4)), 2, axis=0)
    variations = latents.nearby(z, 0.5, [7, 8], 2).reshape(4, -1)
    assert all(np.abs(a - b).max() > 0.1 for i, a in enumerate(variations) for b in variations[:i])


def test_nearby_at_strength_0_is_the_latent():
    z = noise((2, 1, 4, 4))
    assert (latents.nearby(z, 0, [0, 1], 3) == z[:, None]).all()


@pytest.mark.parametrize(
    "deviation, mean, far",
    [
        (1, 0, False),
        (0.3, 0, False),
        (0.2, 0, True),
        (1.2, 0, False),
        (1.4, 0, True),
        (1, 0.35, False),
        (1, 0.45, True),
        (1, -0.45, True),
    ],
)
def test_latents_far_from_noise(deviation: float, mean: float, far: bool):
    one = np.where(np.arange(192).reshape(1, 3, 8, 8) % 2 == 0, deviation, -deviation) + mean
    assert latents.far_from_noise(one.astype(np.float32)).tolist() == [far]


@pytest.mark.parametrize("strength", [-0.1, 1.1, float("nan")])
def test_strength_outside_0_to_1_is_refused(strength: float):
    with pytest.raises(BcmError, match="strength"):
        latents.nearby(noise((1, 1, 4, 4)), strength, [0], 1)


# Projections


def test_known_pixels_are_kept_and_holes_are_clipped():
    images, holes = np.full((1, 1, 2, 2), 0.25, np.float32), np.array([[[[True, False], [False, False]]]])
    x = known_pixels(images, holes)(np.full((1, 1, 2, 2), 7, np.float32))
    assert x.ravel().tolist() == [1, 0.25, 0.25, 0.25]


@given(st.integers(0, 1000), st.floats(0.1, 5))
def test_brightness_is_exact_and_colours_stay_in_range(seed: int, spread: float):
    grey = np.random.default_rng(seed).uniform(-1, 1, (2, 1, 3, 3)).astype(np.float32)
    x = known_brightness(grey)(spread * noise((2, 3, 3, 3), seed))
    assert np.abs(x).max() <= 1 + 1e-6
    np.testing.assert_allclose(np.tensordot([0.299, 0.587, 0.114], x, axes=(0, 1))[:, None], grey, atol=1e-6)


@given(st.integers(0, 1000), st.floats(0.1, 5), st.sampled_from([1, 2, 4]))
def test_means_are_exact_and_pixels_stay_in_range(seed: int, spread: float, factor: int):
    small = np.random.default_rng(seed).uniform(-1, 1, (2, 1, 4 // factor, 4 // factor)).astype(np.float32)
    x = known_means(small, factor)(spread * noise((2, 1, 4, 4), seed))
    assert np.abs(x).max() <= 1 + 1e-6
    means = x.reshape(2, 1, 4 // factor, factor, 4 // factor, factor).mean(axis=(3, 5))
    np.testing.assert_allclose(means, small, atol=1e-6)


def test_projection_shifts_pixels_that_are_in_range():
    x = np.array([0.1, 0.3, -0.1, 0.1], np.float32).reshape(1, 1, 2, 2)
    y = known_means(np.full((1, 1, 1, 1), 0.2, np.float32), 2)(x)
    np.testing.assert_allclose(y.ravel(), [0.2, 0.4, 0.0, 0.2], atol=1e-7)


# The chain with a projection


def test_chain_projects_each_time_it_reaches_the_image():
    seen = []

    def project(x: np.ndarray) -> np.ndarray:
        seen.append(x.copy())
        return np.zeros_like(x)

    end = play(parse_schedule("80>0.002 +0.5 0.5>2>0.002"), GaussianBackend(), Batch(SEEDS), project=project)
    assert len(seen) == 2 and (end == 0).all()
    np.testing.assert_allclose(seen[0], 80 * scale(80, 0.002) * standard_normal(SEEDS, SHAPE, 0), rtol=1e-5)
    # The injection starts from the zeros that the first projection returned.
    np.testing.assert_allclose(seen[1], 0.5 * scale(0.5, 0.002) * standard_normal(SEEDS, SHAPE, 1), rtol=1e-5)


def test_chain_that_ends_above_the_image_is_not_projected_at_its_end():
    end = play(parse_schedule("80>0.002 +0.5 0.5>2"), GaussianBackend(), Batch(SEEDS), project=np.zeros_like)
    np.testing.assert_allclose(end, 0.5 * scale(0.5, 2) * standard_normal(SEEDS, SHAPE, 1), rtol=1e-5)


def test_trace_has_all_states():
    image = np.full((3, *SHAPE), 0.3, np.float32)
    traced = trace(GaussianBackend(), parse_schedule("+0.07 0.07>15>80>0.002"), Batch(SEEDS), image)
    assert traced.levels == (0.07, 15, 80, 0.002) and traced.states.shape == (4, 3, *SHAPE)
    np.testing.assert_allclose(traced.states[2], traced.states[0] * scale(0.07, 80), rtol=1e-5)
    assert not (traced.states[0] == image).any()


def test_pictures_of_a_trace_have_the_contrast_of_an_image():
    traced = trace(GaussianBackend(), parse_schedule("80>0.002"), Batch(range(64)))
    first, last = traced.pictures()
    assert first.std() == pytest.approx(0.5, rel=0.05)
    np.testing.assert_allclose(last, traced.states[1], rtol=1e-4)


@pytest.mark.parametrize("text", ["+0.07 0.07>80", "80>2.4", "+0.2 0.2>5>0.002"])
def test_schedule_that_cannot_fill_in_is_refused(text: str):
    with pytest.raises(BcmError, match="does not fill in"):
        constrained.constrained(GaussianBackend(), parse_schedule(text), np.zeros_like, Batch(SEEDS))


@pytest.mark.parametrize("text", ["+0.07 0.07>80", "80>0.002"])
def test_schedule_that_cannot_restore_is_refused(text: str):
    with pytest.raises(BcmError, match="does not restore"):
        restoration.restore(
            GaussianBackend(), parse_schedule(text), Batch(SEEDS), np.zeros((3, *SHAPE), np.float32)
        )


def test_strength_of_a_restoration_makes_a_schedule():
    assert str(restoration.restoration(0.4)) == f"+0.4 0.4>{restoration.LEVEL:g}>0.002"
    for strength in (0, restoration.LEVEL, float("nan")):
        with pytest.raises(BcmError, match="strength"):
            restoration.restoration(strength)
