"""The tasks: what holds for them whatever the model, and what the model that ships makes of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from agreement import assert_images_agree
from gaussian import SEEDS, SHAPE, GaussianBackend, scale
from hypothesis import given
from hypothesis import strategies as st

import bcm_edge
from bcm_edge import BCM, BcmError, parse_schedule
from bcm_edge.runtime.batches import Batch
from bcm_edge.runtime.chain import play
from bcm_edge.runtime.noise import standard_normal
from bcm_edge.runtime.tasks import constrained, latents, restoration
from bcm_edge.runtime.tasks.classes import guess_level
from bcm_edge.runtime.tasks.constrained import inpainting, known_brightness, known_means, known_pixels
from bcm_edge.runtime.tasks.trace import trace

DIGITS = list(range(10))


@pytest.fixture(scope="module")
def bcm(digits_bundle: Path) -> Iterator[BCM]:
    with bcm_edge.load(digits_bundle) as opened:
        yield opened


@pytest.fixture(scope="module")
def digits(bcm: BCM) -> np.ndarray:
    """One image per class."""
    return bcm.generate(10, schedule="mixture-4", seed=50, labels=DIGITS)


def noise(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


# ---- between latents


def test_slerp_goes_along_the_great_circle():
    a, b = np.zeros((1, 1, 1, 2), np.float32), np.zeros((1, 1, 1, 2), np.float32)
    a[..., 0], b[..., 1] = 3, 1  # at right angles, norms 3 and 1
    middle = latents.slerp(a, b, np.array([0.5]))[0, 0].ravel()
    np.testing.assert_allclose(
        middle, [2 * np.sqrt(0.5), 2 * np.sqrt(0.5)], rtol=1e-6
    )  # norm 2, at 45 degrees


def test_slerp_ends_are_the_ends_to_the_last_bit():
    a, b = noise((4, 1, 8, 8), 1), noise((4, 1, 8, 8), 2)
    path = latents.slerp(a, b, np.linspace(0, 1, 5))
    assert path.shape == (4, 5, 1, 8, 8) and path.dtype == np.float32
    assert (path[:, 0] == a).all() and (path[:, -1] == b).all()


def test_slerp_keeps_the_norm_of_noise_where_a_straight_line_loses_it():
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
def test_nearby_latents_have_the_norm_and_the_angle_asked_for(strength: float, seed: int):
    z = noise((1, 1, 6, 6))
    near = latents.nearby(z, strength, [seed], 2)
    assert near.shape == (1, 2, 1, 6, 6)
    for one in near[0]:
        assert np.linalg.norm(one) == pytest.approx(np.linalg.norm(z), rel=1e-5)
        cosine = float((one * z).sum() / np.linalg.norm(one) / np.linalg.norm(z))
        assert cosine == pytest.approx(np.cos(strength * np.pi / 2), abs=1e-5)


def test_every_variation_has_a_step_of_its_own():
    z = np.repeat(noise((1, 1, 4, 4)), 2, axis=0)
    near = latents.nearby(z, 0.5, [7, 8], 2).reshape(4, -1)
    assert all(np.abs(a - b).max() > 0.1 for i, a in enumerate(near) for b in near[:i])


def test_nearby_at_strength_0_is_the_latent():
    z = noise((2, 1, 4, 4))
    assert (latents.nearby(z, 0, [0, 1], 3) == z[:, None]).all()


@pytest.mark.parametrize("strength", [-0.1, 1.1, float("nan")])
def test_a_strength_outside_0_to_1_is_refused(strength: float):
    with pytest.raises(BcmError, match="strength"):
        latents.nearby(noise((1, 1, 4, 4)), strength, [0], 1)


# ---- projections


def test_known_pixels_stay_and_holes_are_clipped():
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


def test_a_projection_moves_what_is_in_range_by_a_shift_alone():
    x = np.array([0.1, 0.3, -0.1, 0.1], np.float32).reshape(1, 1, 2, 2)
    y = known_means(np.full((1, 1, 1, 1), 0.2, np.float32), 2)(x)
    np.testing.assert_allclose(y.ravel(), [0.2, 0.4, 0.0, 0.2], atol=1e-7)


# ---- the chain with a projection


def test_the_chain_projects_at_every_return_to_the_image():
    seen = []

    def project(x: np.ndarray) -> np.ndarray:
        seen.append(x.copy())
        return np.zeros_like(x)

    end = play(parse_schedule("80>0.002 +0.5 0.5>2>0.002"), GaussianBackend(), Batch(SEEDS), project=project)
    assert len(seen) == 2 and (end == 0).all()
    np.testing.assert_allclose(seen[0], 80 * scale(80, 0.002) * standard_normal(SEEDS, SHAPE, 0), rtol=1e-5)
    np.testing.assert_allclose(
        seen[1], 0.5 * scale(0.5, 0.002) * standard_normal(SEEDS, SHAPE, 1), rtol=1e-5
    )  # from zeros on


def test_a_chain_that_ends_above_the_image_is_not_projected_there():
    end = play(parse_schedule("80>0.002 +0.5 0.5>2"), GaussianBackend(), Batch(SEEDS), project=np.zeros_like)
    np.testing.assert_allclose(end, 0.5 * scale(0.5, 2) * standard_normal(SEEDS, SHAPE, 1), rtol=1e-5)


def test_a_trace_has_the_first_state_and_all_others():
    image = np.full((3, *SHAPE), 0.3, np.float32)
    found = trace(GaussianBackend(), parse_schedule("+0.07 0.07>15>80>0.002"), Batch(SEEDS), image)
    assert found.levels == (0.07, 15, 80, 0.002) and found.states.shape == (4, 3, *SHAPE)
    np.testing.assert_allclose(found.states[2], found.states[0] * scale(0.07, 80), rtol=1e-5)
    assert not (found.states[0] == image).any()


def test_a_trace_is_shown_with_the_contrast_of_an_image():
    found = trace(GaussianBackend(), parse_schedule("80>0.002"), Batch(range(64)))
    first, last = found.pictures()
    assert first.std() == pytest.approx(0.5, rel=0.05)
    np.testing.assert_allclose(last, found.states[1], rtol=1e-4)


@pytest.mark.parametrize("text", ["+0.07 0.07>80", "80>2.4", "+0.2 0.2>5>0.002"])
def test_a_schedule_that_cannot_fill_in_is_refused(text: str):
    with pytest.raises(BcmError, match="does not fill in"):
        constrained.constrained(GaussianBackend(), parse_schedule(text), np.zeros_like, Batch(SEEDS))


@pytest.mark.parametrize("text", ["+0.07 0.07>80", "80>0.002"])
def test_a_schedule_that_cannot_restore_is_refused(text: str):
    with pytest.raises(BcmError, match="does not restore"):
        restoration.restore(
            GaussianBackend(), parse_schedule(text), Batch(SEEDS), np.zeros((3, *SHAPE), np.float32)
        )


def test_a_strength_is_a_schedule():
    assert str(restoration.restoration(0.4)) == f"+0.4 0.4>{restoration.LEVEL:g}>0.002"
    for strength in (0, restoration.LEVEL, float("nan")):
        with pytest.raises(BcmError, match="strength"):
            restoration.restoration(strength)


# ---- on the model that ships


def test_ends_of_an_interpolation_are_the_reconstructions(bcm: BCM, digits: np.ndarray):
    a, b = digits[:3], digits[3:6]
    frames = bcm.interpolate(a, b, frames=5, seed=7, labels=[0, 1, 2], labels_b=[3, 4, 5])
    assert frames.shape == (3, 5, 1, 8, 8)
    assert_images_agree(frames[:, 0], bcm.reconstruct(a, seed=7, labels=[0, 1, 2]))
    assert_images_agree(frames[:, -1], bcm.reconstruct(b, seed=7, labels=[3, 4, 5]))


def test_an_interpolation_within_a_class_moves_in_small_steps(bcm: BCM):
    a, b = bcm.generate(8, seed=0, labels=3), bcm.generate(8, seed=100, labels=3)
    frames = bcm.interpolate(a, b, frames=9, labels=3)
    steps = np.sqrt(np.square(np.diff(frames, axis=1)).mean(axis=(2, 3, 4)))  # [pairs, 8]
    whole = np.sqrt(np.square(frames[:, -1] - frames[:, 0]).mean(axis=(1, 2, 3)))
    assert (steps.max(axis=1) / whole).mean() < 0.4  # equal steps would be 1/8, one jump 1


def test_variations_of_strength_0_are_reconstructions_and_grow_apart_with_it(bcm: BCM, digits: np.ndarray):
    back = bcm.reconstruct(digits, labels=DIGITS)
    away = []
    for strength in (0, 0.2, 0.5, 1):
        found = bcm.variations(digits, 3, strength=strength, labels=DIGITS)
        assert found.shape == (10, 3, 1, 8, 8)
        away.append(float(np.square(found - back[:, None]).mean()))
    assert away[0] < 1e-9 and away == sorted(away) and away[1] > 1e-3
    again = bcm.variations(digits[4:5], 3, strength=0.5, seed=4, labels=4)
    assert_images_agree(
        again[0], bcm.variations(digits, 3, strength=0.5, labels=DIGITS)[4]
    )  # by its seed alone


def test_inpainting_leaves_known_pixels_exactly(bcm: BCM, digits: np.ndarray):
    hole = np.zeros((8, 8), bool)
    hole[4:] = True
    filled = bcm.inpaint(digits, hole, labels=DIGITS)
    assert (filled[..., :4, :] == digits[..., :4, :]).all()
    assert filled[..., 4:, :].std() > 0.3 and np.abs(filled).max() <= 1
    assert_images_agree(bcm.inpaint(digits[2:3], hole, seed=2, labels=2)[0], filled[2])  # by its seed alone
    per_image = np.repeat(hole[None], 10, axis=0)
    assert (bcm.inpaint(digits, per_image, labels=DIGITS) == filled).all()


@pytest.mark.parametrize(
    ("hole", "message"),
    [
        (np.zeros((8, 8)), "empty"),
        (np.ones((8, 8)), "covers the whole image"),
        (np.eye(7), "does not fit"),
        (np.ones((3, 8, 8)), "does not fit"),
        (np.eye(8)[0], "does not fit"),
    ],
)
def test_masks_that_cannot_be_used(bcm: BCM, digits: np.ndarray, hole: np.ndarray, message: str):
    with pytest.raises(BcmError, match=message):
        bcm.inpaint(digits, hole, labels=DIGITS)


@pytest.mark.parametrize("factor", [2, 4])
def test_upscaled_images_shrink_to_what_they_were_made_from(bcm: BCM, digits: np.ndarray, factor: int):
    size = 8 // factor
    small = digits.reshape(10, 1, size, factor, size, factor).mean(axis=(3, 5))
    large = bcm.upscale(small, labels=DIGITS)
    np.testing.assert_allclose(
        large.reshape(10, 1, size, factor, size, factor).mean(axis=(3, 5)), small, atol=1e-5
    )
    assert np.abs(large).max() <= 1 + 1e-5


def test_sizes_that_cannot_be_enlarged(bcm: BCM):
    with pytest.raises(BcmError, match="possible sizes: 4×4, 2×2, 1×1"):
        bcm.upscale(np.zeros((1, 1, 3, 3), np.float32), labels=0)
    with pytest.raises(BcmError, match="cannot be enlarged"):
        bcm.upscale(np.zeros((1, 1, 8, 8), np.float32), labels=0)


def test_a_grey_model_knows_no_colours(bcm: BCM, digits: np.ndarray):
    with pytest.raises(BcmError, match="needs a model of 3 channels"):
        bcm.colorize(digits, labels=DIGITS)


def test_restoration_takes_noise_away(bcm: BCM, digits: np.ndarray):
    damaged = np.clip(digits + 0.3 * noise(digits.shape), -1, 1)
    restored = bcm.restore(damaged, labels=DIGITS)
    assert np.square(restored - digits).mean() < 0.75 * np.square(damaged - digits).mean()


def test_levels_for_holes_grow_with_the_side_up_to_80():
    texts = [str(inpainting(shape)) for shape in ((1, 8, 8), (3, 20, 28), (1, 2048, 2048))]
    assert (
        texts[0]
        == "80>0.002 +1.5 1.5>0.002 +1 1>0.002 +0.7 0.7>0.002 +0.5 0.5>0.002 +0.4 0.4>0.002 +0.2 0.2>0.6>0.002"
    )
    assert (
        texts[1]
        == "80>0.002 +5.25 5.25>0.002 +3.5 3.5>0.002 +2.45 2.45>0.002 +1.75 1.75>0.002 +1.4 1.4>0.002 +0.7 0.7>2.1>0.002"
    )
    assert texts[2].startswith("80>0.002 +80 80>0.002 +53.33 ")


def test_the_noise_of_a_guess_grows_with_the_side():
    levels = [guess_level(shape) for shape in ((1, 8, 8), (1, 28, 28), (3, 64, 32), (3, 2048, 2048))]
    assert levels == pytest.approx([0.7, 2.45, 5.6, 80])


@pytest.mark.slow
def test_labels_are_guessed(bcm: BCM):
    labels = np.arange(60) % 10
    images = bcm.generate(60, labels=labels, seed=300, schedule="mixture-4")
    guessed = bcm.guess_labels(images)
    assert guessed.dtype == np.int64 and (guessed == labels).mean() >= 0.85
    assert bcm.guess_labels(images[7:8], seed=7)[0] == guessed[7]


def test_a_trace_of_a_bundle_ends_where_the_schedule_does(bcm: BCM, digits: np.ndarray):
    found = bcm.trace("mixture-4", seed=[3, 4], labels=1)
    generated = bcm.generate(2, seed=3, labels=1, schedule="mixture-4")
    assert_images_agree(np.clip(found.states[-1], -1, 1), generated)
    with pytest.raises(BcmError, match="starts from noise"):
        bcm.trace("one-step", images=digits, labels=DIGITS)
    with pytest.raises(BcmError, match="starts from an image"):
        bcm.trace("invert-2", labels=0)


def test_pairs_must_be_pairs(bcm: BCM, digits: np.ndarray):
    with pytest.raises(BcmError, match="3 images cannot be paired with 2"):
        bcm.interpolate(digits[:3], digits[:2], labels=0)
    with pytest.raises(BcmError, match="frames"):
        bcm.interpolate(digits[:3], digits[:3], frames=1, labels=0)
