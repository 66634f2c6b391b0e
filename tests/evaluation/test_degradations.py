"""Degraded images, and the attack on a classifier."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from bcm_edge.errors import ImageError, InputError, MissingExtraError
from bcm_edge.evaluation.attack import square_attack
from bcm_edge.evaluation.classifier import Classifier
from bcm_edge.evaluation.degradations import DEGRADATIONS, Degradation, blur, jpeg, noise
from bcm_edge.evaluation.fidelity import psnr

SEED = 7


Digits = tuple[np.ndarray, np.ndarray]


@pytest.mark.parametrize("degradation", DEGRADATIONS, ids=lambda d: d.name)
@pytest.mark.parametrize("channels", [1, 3])
def test_degradations_damage_and_stay_in_range(degradation: Degradation, channels: int, digits: Digits):
    images = np.repeat(digits[0][:5], channels, axis=1)
    before = images.copy()
    damaged = degradation.apply(images, range(5))
    assert damaged.dtype == np.float32
    assert damaged.shape == images.shape
    assert np.abs(damaged).max() <= 1
    assert np.array_equal(images, before)
    assert np.array_equal(damaged, degradation.apply(images, range(5)))
    assert (psnr(damaged, images) < 30).all()


def test_damage_grows_with_lower_quality(digits: Digits):
    images = digits[0][:20]
    low, middle, high = (psnr(jpeg(images, quality), images).mean() for quality in (10, 30, 90))
    assert low < middle < high
    assert psnr(blur(images, 0.5), images).mean() > psnr(blur(images, 1), images).mean()


def test_jpeg_keeps_colours():
    red = np.full((1, 3, 16, 16), -1, np.float32)
    red[:, 0] = 1
    assert np.abs(jpeg(red, 95) - red).max() < 0.05


def test_jpeg_refuses_two_channels():
    with pytest.raises(ImageError):
        jpeg(np.zeros((1, 2, 8, 8), np.float32), 10)


def test_blur_does_not_mix_images_or_channels():
    images = np.full((2, 3, 8, 8), -1, np.float32)
    images[0, 1] = 1
    assert np.allclose(blur(images, 1), images, atol=1e-6)


def test_noise_depends_on_the_seed_of_its_image():
    grey = np.zeros((2, 1, 32, 32), np.float32)
    both, second = noise(grey, 0.3, [1, 2]), noise(grey[:1], 0.3, [2])
    assert np.array_equal(both[1], second[0])
    assert not np.array_equal(both[0], both[1])
    assert both.std() == pytest.approx(0.3, rel=0.05)


@pytest.fixture(scope="module")
def attacked(classifier: Classifier, digits: Digits) -> np.ndarray:
    pytest.importorskip("art")
    return square_attack(classifier, digits[0][:20], digits[1][:20], 0.3, 40, SEED)


def test_attack_keeps_its_budget_and_lowers_the_accuracy(
    classifier: Classifier, digits: Digits, attacked: np.ndarray
):
    images, labels = digits[0][:20], digits[1][:20]
    assert attacked.dtype == np.float32
    assert np.abs(attacked).max() <= 1
    assert 0.29 < np.abs(attacked - images).max() <= 0.3 + 1e-6
    assert (classifier.predict(attacked) == labels).mean() < (classifier.predict(images) == labels).mean()


def share_alike(actual: np.ndarray, expected: np.ndarray) -> float:
    """Return the share of attacked images that are equal.

    An attack keeps a square if it lowers the margin of the classifier, which rounding can decide.
    """
    return float((np.abs(actual - expected).max(axis=(1, 2, 3)) < 1e-5).mean())


@pytest.mark.numerical
def test_attack_depends_only_on_its_seed(classifier: Classifier, digits: Digits, attacked: np.ndarray):
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    np.random.seed(3)  # noqa: NPY002
    before = np.random.get_state(legacy=False)  # noqa: NPY002
    again = square_attack(classifier, digits[0][:20], digits[1][:20], 0.3, 40, SEED)
    after = np.random.get_state(legacy=False)  # noqa: NPY002
    assert share_alike(again, attacked) >= 0.75
    assert before["state"]["pos"] == after["state"]["pos"]
    assert np.array_equal(before["state"]["key"], after["state"]["key"])
    assert torch.get_num_threads() == threads + 1
    torch.set_num_threads(threads)
    other = square_attack(classifier, digits[0][:20], digits[1][:20], 0.3, 40, SEED + 1)
    assert share_alike(other, attacked) <= 0.25


def test_attack_without_a_budget_changes_nothing(classifier: Classifier, digits: Digits):
    pytest.importorskip("art")
    assert np.array_equal(square_attack(classifier, *digits, 0, 5, SEED), digits[0])
    with pytest.raises(InputError):
        square_attack(classifier, *digits, -0.1, 5, SEED)
    with pytest.raises(InputError):
        square_attack(classifier, *digits, 0.1, 0, SEED)


def test_attack_without_the_toolbox_names_the_extra(
    classifier: Classifier, digits: Digits, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "art.attacks.evasion", None)
    with pytest.raises(MissingExtraError, match=r"pip install .*\[evaluate\]"):
        square_attack(classifier, *digits, 0.1, 5, SEED)
