"""restyle: an image is inverted under its own label and generated under another."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from agreement import assert_images_agree
from gaussian import ClassGaussianBackend, class_mean, scale

import bcm_edge
from bcm_edge import BCM, NetworkCall
from bcm_edge.errors import LabelError, ScheduleError
from bcm_edge.runtime.noise import INVERSION_DRAW, standard_normal

DIGITS = list(range(10))


@pytest.fixture(scope="module")
def bcm(digits_bundle: Path) -> Iterator[BCM]:
    """The shipped model."""
    with bcm_edge.load(digits_bundle) as opened:
        yield opened


@pytest.fixture(scope="module")
def threes(bcm: BCM) -> np.ndarray:
    """Sixty threes."""
    return bcm.generate(60, schedule="mixture-4", seed=300, labels=3)


def ink(images: np.ndarray) -> np.ndarray:
    """Return the mean of each image."""
    return images.mean(axis=(1, 2, 3))


def test_classes_of_a_known_model_are_exchanged_and_the_rest_is_kept(bcm: BCM):
    known = BCM(bcm.bundle, ClassGaussianBackend())
    rest = 0.3 * standard_normal([1, 2, 3], (1, 8, 8), 5)
    own, to = np.array([1, 4, 7]), np.array([8, 4, 0])
    images = np.clip(class_mean(own) + rest, -1, 1)
    restyled = known.restyle(images, labels=own, to=to, seed=20)
    noisy = images + np.float32(0.07) * standard_normal([20, 21, 22], (1, 8, 8), INVERSION_DRAW)
    left = class_mean(own) - class_mean(to)  # of the mean of the old class, after the way from 80 down
    expected = class_mean(to) + scale(80, 0.002) * left + scale(0.07, 0.002) * (noisy - class_mean(own))
    np.testing.assert_allclose(restyled, np.clip(expected, -1, 1), atol=1e-4)
    assert np.abs(restyled - (images - left)).mean() < 0.1


def test_own_labels_give_the_reconstruction(bcm: BCM):
    images = bcm.generate(10, schedule="mixture-4", seed=50, labels=DIGITS)
    options: Any = {"labels": DIGITS, "inversion": "invert-1", "schedule": "ancestral-2", "seed": 9}
    assert_images_agree(bcm.restyle(images, to=DIGITS, **options), bcm.reconstruct(images, **options))
    assert_images_agree(bcm.restyle(images, labels="all", to="all"), bcm.reconstruct(images, labels="all"))


@pytest.mark.parametrize("digit", [0, 5, 8])
def test_threes_become_another_digit_that_keeps_their_weight(bcm: BCM, threes: np.ndarray, digit: int):
    restyled = bcm.restyle(threes, labels=3, to=digit)
    assert (bcm.guess_labels(restyled) == digit).mean() >= 0.7
    assert np.corrcoef(ink(threes), ink(restyled))[0, 1] > 0.7
    fresh = bcm.generate(60, labels=digit, seed=900)
    assert abs(np.corrcoef(ink(threes), ink(fresh))[0, 1]) < 0.4
    assert np.square(restyled - threes).mean() < 0.8 * np.square(fresh - threes).mean()


def test_result_depends_on_its_own_image_seed_and_target(bcm: BCM, threes: np.ndarray):
    together = bcm.restyle(threes[:20], labels=3, to="5,8", seed=40)
    alone = bcm.restyle(threes[7], labels=3, to=8, seed=47)
    assert alone.shape == (1, 1, 8, 8)
    assert_images_agree(together[7], alone[0])
    pixels = bcm.restyle(threes[:20], labels=3, to=[5, 8] * 10, seed=40, output_type="uint8")
    assert np.abs(pixels - (together + 1) * 127.5).max() <= 0.6


def test_guessed_labels_are_those_of_the_images(bcm: BCM, threes: np.ndarray):
    calls: list[NetworkCall] = []
    guessed = bcm.restyle(threes[:20], labels="guess", to=8, on_move=calls.append)
    assert_images_agree(guessed, bcm.restyle(threes[:20], labels=bcm.guess_labels(threes[:20]), to=8))
    # Two batches, each with 50 calls that guess, two up and one down.
    assert [(call.index, call.total) for call in calls] == [(index, 106) for index in range(106)]


@pytest.mark.parametrize(
    ("to", "message"),
    [
        (None, "restyle needs the class to generate: give to= with a number from 0 to 9"),
        ("guess", "to: the class to generate cannot be guessed; give a number from 0 to 9"),
        (10, "to: label 10 is out of range; this model has classes 0 to 9"),
        ([1, 2], "to: 2 labels were given for 3 images"),
        ("all", "to: 10 classes for 3 images; give each image once per class"),
        ("1,,2", "to: empty entry in '1,,2'; separate labels with one comma"),
    ],
)
def test_unusable_targets(bcm: BCM, threes: np.ndarray, to: Any, message: str):
    with pytest.raises(LabelError) as raised:
        bcm.restyle(threes[:3], labels=3, to=to)
    assert str(raised.value) == message


def test_schedule_that_does_not_generate_is_refused_before_the_inversion(bcm: BCM, threes: np.ndarray):
    calls: list[NetworkCall] = []
    with pytest.raises(ScheduleError, match="starts from an image, so it cannot generate"):
        bcm.restyle(threes[:1], labels=3, to=8, schedule="invert-2", on_move=calls.append)
    assert calls == []


@pytest.mark.parametrize(("classes", "there"), [(None, "no classes"), (1, "only one class")])
def test_model_without_two_classes_is_refused(bcm: BCM, classes: int | None, there: str):
    manifest = bcm.bundle.manifest
    model = replace(manifest.model, num_classes=classes)
    bundle = replace(bcm.bundle, manifest=replace(manifest, model=model))
    other = BCM(bundle, bcm.backend)
    images = np.full((1, 1, 8, 8), -0.5, np.float32)
    for to in (0, "0", None):
        with pytest.raises(LabelError, match=f"this model has {there}; it needs a model with at least two"):
            other.restyle(images, to=to)
