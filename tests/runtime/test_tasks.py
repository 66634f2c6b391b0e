"""The tasks on the shipped model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from agreement import assert_images_agree

import bcm_edge
from bcm_edge import BCM, BcmError
from bcm_edge.runtime.tasks.classes import guess_level
from bcm_edge.runtime.tasks.constrained import inpainting

DIGITS = list(range(10))


@pytest.fixture(scope="module")
def bcm(digits_bundle: Path) -> Iterator[BCM]:
    """The shipped model."""
    with bcm_edge.load(digits_bundle) as opened:
        yield opened


@pytest.fixture(scope="module")
def digits(bcm: BCM) -> np.ndarray:
    """One image per class."""
    return bcm.generate(10, schedule="mixture-4", seed=50, labels=DIGITS)


def test_ends_of_an_interpolation_are_the_reconstructions(bcm: BCM, digits: np.ndarray):
    a, b = digits[:3], digits[3:6]
    frames = bcm.interpolate(a, b, frames=5, seed=7, labels=[0, 1, 2], labels_b=[3, 4, 5])
    assert frames.shape == (3, 5, 1, 8, 8)
    assert_images_agree(frames[:, 0], bcm.reconstruct(a, seed=7, labels=[0, 1, 2]))
    assert_images_agree(frames[:, -1], bcm.reconstruct(b, seed=7, labels=[3, 4, 5]))


def test_interpolation_within_a_class_has_small_steps(bcm: BCM):
    a, b = bcm.generate(8, seed=0, labels=3), bcm.generate(8, seed=100, labels=3)
    frames = bcm.interpolate(a, b, frames=9, labels=3)
    steps = np.sqrt(np.square(np.diff(frames, axis=1)).mean(axis=(2, 3, 4)))  # [pairs, 8]
    whole = np.sqrt(np.square(frames[:, -1] - frames[:, 0]).mean(axis=(1, 2, 3)))
    assert (steps.max(axis=1) / whole).mean() < 0.4  # equal steps would be 1/8, a single jump 1


def test_variations_differ_more_with_more_strength(bcm: BCM, digits: np.ndarray):
    back = bcm.reconstruct(digits, labels=DIGITS)
    distances = []
    for strength in (0, 0.2, 0.5, 1):
        varied = bcm.variations(digits, 3, strength=strength, labels=DIGITS)
        assert varied.shape == (10, 3, 1, 8, 8)
        distances.append(float(np.square(varied - back[:, None]).mean()))
    assert distances[0] < 1e-9 and distances == sorted(distances) and distances[1] > 1e-3
    again = bcm.variations(digits[4:5], 3, strength=0.5, seed=4, labels=4)
    # A variation depends only on its seed.
    assert_images_agree(again[0], bcm.variations(digits, 3, strength=0.5, labels=DIGITS)[4])


def test_inpainting_keeps_known_pixels_exactly(bcm: BCM, digits: np.ndarray):
    hole = np.zeros((8, 8), bool)
    hole[4:] = True
    filled = bcm.inpaint(digits, hole, labels=DIGITS)
    assert (filled[..., :4, :] == digits[..., :4, :]).all()
    assert filled[..., 4:, :].std() > 0.3 and np.abs(filled).max() <= 1
    again = bcm.inpaint(digits[2:3], hole, seed=2, labels=2)  # depends only on its seed
    assert_images_agree(again[0], filled[2])
    per_image = np.repeat(hole[None], 10, axis=0)
    assert (bcm.inpaint(digits, per_image, labels=DIGITS) == filled).all()


def test_inpainting_and_restoration_accept_lists_of_images(bcm: BCM, digits: np.ndarray):
    hole = np.zeros((8, 8), bool)
    hole[4:] = True
    images: Any = list(digits)
    assert (bcm.inpaint(images, hole, labels=DIGITS) == bcm.inpaint(digits, hole, labels=DIGITS)).all()
    assert (bcm.restore(images, labels=DIGITS) == bcm.restore(digits, labels=DIGITS)).all()


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
def test_unusable_masks(bcm: BCM, digits: np.ndarray, hole: np.ndarray, message: str):
    with pytest.raises(BcmError, match=message):
        bcm.inpaint(digits, hole, labels=DIGITS)


@pytest.mark.parametrize("factor", [2, 4])
def test_upscaled_images_have_the_means_of_the_small_ones(bcm: BCM, digits: np.ndarray, factor: int):
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


def test_colorize_refuses_a_model_with_one_channel(bcm: BCM, digits: np.ndarray):
    with pytest.raises(BcmError, match="needs a model of 3 channels"):
        bcm.colorize(digits, labels=DIGITS)


def test_restoration_removes_noise(bcm: BCM, digits: np.ndarray):
    noise = np.random.default_rng(0).standard_normal(digits.shape).astype(np.float32)
    damaged = np.clip(digits + 0.3 * noise, -1, 1)
    restored = bcm.restore(damaged, labels=DIGITS)
    assert np.square(restored - digits).mean() < 0.75 * np.square(damaged - digits).mean()


def test_levels_of_inpainting_grow_with_the_size():
    texts = [str(inpainting(shape)) for shape in ((1, 8, 8), (3, 20, 28), (1, 2048, 2048))]
    assert texts[0] == (
        "80>0.002 +1.5 1.5>0.002 +1 1>0.002 +0.7 0.7>0.002 +0.5 0.5>0.002 +0.4 0.4>0.002 +0.2 0.2>0.6>0.002"
    )
    assert texts[1] == (
        "80>0.002 +5.25 5.25>0.002 +3.5 3.5>0.002 +2.45 2.45>0.002 +1.75 1.75>0.002 +1.4 1.4>0.002 "
        "+0.7 0.7>2.1>0.002"
    )
    assert texts[2].startswith("80>0.002 +80 80>0.002 +53.33 ")


def test_level_of_guessing_labels_grows_with_the_size():
    levels = [guess_level(shape) for shape in ((1, 8, 8), (1, 28, 28), (3, 64, 32), (3, 2048, 2048))]
    assert levels == pytest.approx([0.7, 2.45, 5.6, 80])


@pytest.mark.slow
def test_guessed_labels_are_right(bcm: BCM):
    labels = np.arange(60) % 10
    images = bcm.generate(60, labels=labels, seed=300, schedule="mixture-4")
    guessed = bcm.guess_labels(images)
    assert guessed.dtype == np.int64 and (guessed == labels).mean() >= 0.85
    assert bcm.guess_labels(images[7:8], seed=7)[0] == guessed[7]


@pytest.mark.slow
def test_labels_of_incomplete_images_are_guessed_from_the_known_part(bcm: BCM):
    labels = np.arange(30) % 10
    images = bcm.generate(30, labels=labels, seed=300, schedule="mixture-4")
    hole = np.zeros((8, 8), bool)
    hole[5:] = True
    unknown = np.where(hole, 1, images)  # what lies in the hole must not matter
    guessed = bcm.guess_labels(images, holes=hole)
    assert (guessed == labels).mean() >= 0.7
    assert (bcm.guess_labels(unknown, holes=hole) == guessed).all()
    small = images.reshape(30, 1, 4, 2, 4, 2).mean(axis=(3, 5))
    assert (bcm.guess_labels(small, factor=2) == labels).mean() >= 0.6
    assert bcm.guess_labels(small[7:8], factor=2, seed=7)[0] == bcm.guess_labels(small, factor=2)[7]
    nothing = np.ones((8, 8), bool)
    nothing[0, 0] = False  # a corner is black in every digit
    assert (bcm.guess_labels(images, holes=nothing) == labels).mean() < 0.5


def test_last_state_of_a_trace_is_the_generated_image(bcm: BCM, digits: np.ndarray):
    traced = bcm.trace("mixture-4", seed=[3, 4], labels=1)
    generated = bcm.generate(2, seed=3, labels=1, schedule="mixture-4")
    assert_images_agree(np.clip(traced.states[-1], -1, 1), generated)
    with pytest.raises(BcmError, match="leads to noise, so give it as inversion="):
        bcm.trace("invert-2", labels=0)
    with pytest.raises(BcmError, match="starts from an image, but there are no images"):
        bcm.trace("+0.2 0.2>5>0.002", labels=0)


def test_trace_of_images_is_their_inversion_and_the_way_back(bcm: BCM, digits: np.ndarray):
    traced = bcm.trace("ancestral-2", images=digits, inversion="+0.1 0.1>80", labels=DIGITS)
    assert traced.levels[0] == 0.1 and traced.levels[1] == 80 and traced.levels[-1] == 0.002
    assert_images_agree(traced.states[1] / 80, bcm.invert(digits, inversion="+0.1 0.1>80", labels=DIGITS))
    restored = bcm.trace("+0.2 0.2>5>0.002", images=digits, labels=DIGITS)
    assert restored.levels == (0.2, 5, 0.002)
    with pytest.raises(BcmError, match="a schedule to an image is given as schedule="):
        bcm.trace(images=digits, inversion="one-step", labels=DIGITS)


def test_interpolate_refuses_unequal_numbers_of_images(bcm: BCM, digits: np.ndarray):
    with pytest.raises(BcmError, match="same number of images, not 3 and 2"):
        bcm.interpolate(digits[:3], digits[:2], labels=0)
    with pytest.raises(BcmError, match="frames"):
        bcm.interpolate(digits[:3], digits[:3], frames=1, labels=0)
