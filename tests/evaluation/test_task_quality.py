"""How well the shipped model does what inversion opens, on digits it was not trained on; and what the measures of it promise.

The bounds have slack: each stands well inside what the validation digits gave, and the test digits are measured.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from PIL import Image

import bcm_edge
from bcm_edge import BCM
from bcm_edge.errors import ImageError, InputError, LabelError, MissingExtraError
from bcm_edge.evaluation.attack import square_attack
from bcm_edge.evaluation.classifier import Classifier, train_classifier
from bcm_edge.evaluation.degradations import DEGRADATIONS, Degradation, blur, jpeg, noise
from bcm_edge.evaluation.exhibits import Curves, Exhibit, Gallery, Table
from bcm_edge.evaluation.fidelity import psnr
from bcm_edge.evaluation.quality import Judge
from bcm_edge.evaluation.task_constrained import (
    TUNED_UPSCALING,
    enlarge,
    holes,
    inner_karras_levels,
    inpainting_methods,
    loop,
    measure_colouring,
    measure_inpainting,
    measure_upscaling,
    methods,
    right_hues,
    shrink,
    to_grey,
)
from bcm_edge.evaluation.task_measures import (
    measure_purification,
    measure_reconstruction,
    measure_restoration,
    measure_variations,
)
from bcm_edge.evaluation.tasks import Run, _purification, task_exhibits
from bcm_edge.runtime.schedule import Schedule
from bcm_edge.runtime.tasks.constrained import COLOURING, UPSCALING
from bcm_edge.training.data import load_digits

SEED = 7
Digits = tuple[np.ndarray, np.ndarray]


@pytest.fixture(scope="module")
def bcm(digits_bundle: Path) -> Iterator[BCM]:
    with bcm_edge.load(digits_bundle, batch=128) as opened:
        yield opened


@pytest.fixture(scope="module")
def digits() -> Digits:
    """120 test digits and their labels."""
    part = load_digits("test")
    assert part.labels is not None
    return part.images.numpy()[:120], part.labels.numpy()[:120]


# ---- the shipped model


def test_inpainting_beats_the_consistency_models_loop(bcm: BCM, judge: Judge, digits: Digits):
    kinds = inpainting_methods((1, 8, 8))
    chosen = {name: kinds[name] for name in ("ours", "consistency loop, Karras levels")}
    found = measure_inpainting(bcm, judge, *digits, SEED, chosen)
    ours, theirs = ([f for f in found if f.method == name] for name in chosen)
    assert {f.schedule.nfe for f in found} == {8}
    assert all(f.exact for f in found)
    assert np.mean([f.error for f in ours]) < 0.95 * np.mean([f.error for f in theirs])
    assert np.mean([f.frechet for f in ours]) < np.mean([f.frechet for f in theirs])


def test_restoration_comes_nearer_to_digits_and_to_the_original(bcm: BCM, judge: Judge, digits: Digits):
    degraded, restored = measure_restoration(
        bcm, judge, *digits, SEED, DEGRADATIONS[:1], ("+{0} {0}>5>0.002",), (0.2,)
    )
    assert (degraded.degradation, degraded.nfe, restored.nfe) == ("JPEG 10", 0, 2)
    assert restored.frechet < 0.5 * degraded.frechet
    assert restored.psnr > degraded.psnr
    assert restored.ssim > degraded.ssim


def test_purification_undoes_an_attack(bcm: BCM, judge: Judge, digits: Digits):
    pytest.importorskip("art")
    images, labels = digits[0][:60], digits[1][:60]
    clean, attacked = measure_purification(
        bcm, judge, images, labels, SEED, budgets=(0.0, 0.3), strengths=(0.3,)
    )
    assert clean.attacked >= 0.95
    assert clean.purified[0.3] >= 0.9
    assert attacked.attacked <= 0.7
    assert attacked.purified[0.3] >= attacked.attacked + 0.2
    assert attacked.purified_true_labels is not None
    assert attacked.purified_true_labels[0.3] >= 0.9


@pytest.mark.slow
def test_the_model_knows_what_a_digit_is(bcm: BCM, digits: Digits):
    assert (bcm.guess_labels(digits[0], seed=SEED) == digits[1]).mean() >= 0.9


def test_upscaling_beats_interpolation_and_keeps_what_was_given(bcm: BCM, judge: Judge, digits: Digits):
    found = {f.method: f for f in measure_upscaling(bcm, judge, *digits, SEED, schedules={"ours": UPSCALING})}
    assert found["ours"].frechet < 0.3 * found["bicubic"].frechet
    assert found["ours"].frechet < 0.3 * found["nearest neighbour"].frechet
    assert found["ours"].error < 0.8 * found["bicubic"].error
    assert found["ours"].small_error < 1e-6
    assert found["bicubic"].small_error > 0.1


def test_reconstruction_is_better_with_more_calls(bcm: BCM, digits: Digits):
    first, second = measure_reconstruction(bcm, *digits, SEED)
    assert (first.name, second.name) == ("invert-1", "invert-2")
    assert second.error < 0.9 * first.error
    assert first.by_pixel.shape == (8, 8)
    assert first.by_pixel.mean() == pytest.approx(first.error)
    assert first.by_pixel[:, 0].mean() < 0.2 * first.error  # the left edge is white paper in every digit


def test_variations_go_further_with_strength_and_stay_of_their_class(bcm: BCM, judge: Judge, digits: Digits):
    found = measure_variations(bcm, judge, *digits, SEED, (0.0, 0.3, 1.0))
    errors = [f.error for f in found]
    assert errors == sorted(errors)
    assert errors[2] > 5 * errors[0]
    assert all(f.agreement is not None and f.agreement > 0.9 for f in found)


def test_exhibits_of_every_task(
    bcm: BCM,
    judge: Judge,
    digits: Digits,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr("bcm_edge.evaluation.tasks.measure_restoration", few_restorations)
    said: list[str] = []
    pytest.importorskip("art")
    monkeypatch.setattr("bcm_edge.evaluation.tasks.ATTACKED", 4)
    monkeypatch.setattr("bcm_edge.evaluation.task_galleries.PICTURES", 2)
    monkeypatch.setattr("bcm_edge.evaluation.task_galleries.PAIRS", 1)
    shown = task_exhibits(bcm, judge, digits[0][:20], digits[1][:20], SEED, said.append)
    assert titles(shown, Table) == [
        "Inpainting",
        "Restoration",
        "Purification",
        "Variations",
        "Upscaling by 2",
        "Reconstruction errors",
    ]
    assert titles(shown, Curves) == ["Restoration of JPEG: distance over network calls"]
    assert len(titles(shown, Gallery)) == 8
    for exhibit in shown:
        if isinstance(exhibit, Gallery):
            assert exhibit.images.dtype == np.float32
            assert np.abs(exhibit.images).max() <= 1
            assert len(exhibit.images) % exhibit.columns == 0
            assert len(exhibit.rows) in (0, len(exhibit.images) // exhibit.columns)
        if isinstance(exhibit, Table):
            assert exhibit.rows
            assert {len(row) for row in exhibit.rows} == {len(exhibit.columns)}
    assert any("inpainting" in line for line in said)


def test_an_attack_that_cannot_be_made_is_said(
    bcm: BCM,
    judge: Judge,
    digits: Digits,
    monkeypatch: pytest.MonkeyPatch,
):
    def missing(*_: object, **__: object) -> None:
        raise MissingExtraError("the toolbox is not there")

    monkeypatch.setattr("bcm_edge.evaluation.task_measures.square_attack", missing)
    (table,) = _purification(Run(bcm, judge, *digits, SEED, None))
    assert isinstance(table, Table)
    assert table.note == "Not measured: the toolbox is not there."


# ---- schedules and holes


def test_the_loops_levels():
    levels = inner_karras_levels(7)
    assert len(levels) == 7
    assert levels == sorted(levels, reverse=True)
    assert levels[3] == pytest.approx(((80 ** (1 / 7) + 0.002 ** (1 / 7)) / 2) ** 7)
    assert str(loop((2, 0.5))) == "80>0.002 +2 2>0.002 +0.5 0.5>0.002"


@pytest.mark.parametrize("ours", [UPSCALING, COLOURING])
def test_methods_are_compared_at_equal_cost(ours: Schedule):
    assert {schedule.nfe for schedule in methods(ours, TUNED_UPSCALING).values()} == {ours.nfe}
    assert ours.nfe <= 8


@pytest.mark.parametrize("side", [8, 28, 2048])
def test_inpainting_is_compared_at_equal_cost(side: int):
    assert {schedule.nfe for schedule in inpainting_methods((3, side, side)).values()} == {8}


def test_what_inpainting_is_compared_with_grows_too():
    tuned = inpainting_methods((1, 16, 12))["consistency loop, tuned levels"]
    assert [move.t for move in tuned.moves] == [80, 2.4, 1.8, 1.4, 1, 0.8, 0.6, 0.4]


def test_holes():
    named = holes(8, 8)
    assert {name: int(hole.sum()) for name, hole in named.items()} == {
        "bottom half": 32,
        "middle": 16,
        "left half": 32,
    }
    assert named["bottom half"][7].all()
    assert not named["bottom half"][3].any()
    assert named["left half"][:, 3].all()


def test_shrinking_undoes_nearest_neighbours(digits: Digits):
    small = shrink(digits[0][:3], 2)
    assert small.shape == (3, 1, 4, 4)
    assert small[0, 0, 0, 0] == pytest.approx(digits[0][0, 0, :2, :2].mean())
    assert np.array_equal(shrink(enlarge(small, 2, Image.Resampling.NEAREST), 2), small)


# ---- degradations


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


def test_less_quality_more_damage(digits: Digits):
    images = digits[0][:20]
    low, middle, high = (psnr(jpeg(images, quality), images).mean() for quality in (10, 30, 90))
    assert low < middle < high
    assert psnr(blur(images, 0.5), images).mean() > psnr(blur(images, 1), images).mean()


def test_jpeg_of_colours_keeps_them_apart():
    red = np.full((1, 3, 16, 16), -1, np.float32)
    red[:, 0] = 1
    assert np.abs(jpeg(red, 95) - red).max() < 0.05


def test_jpeg_knows_grey_and_rgb():
    with pytest.raises(ImageError):
        jpeg(np.zeros((1, 2, 8, 8), np.float32), 10)


def test_blur_keeps_images_and_channels_apart():
    images = np.full((2, 3, 8, 8), -1, np.float32)
    images[0, 1] = 1
    assert np.allclose(blur(images, 1), images, atol=1e-6)


def test_noise_belongs_to_a_seed():
    grey = np.zeros((2, 1, 32, 32), np.float32)
    both, second = noise(grey, 0.3, [1, 2]), noise(grey[:1], 0.3, [2])
    assert np.array_equal(both[1], second[0])
    assert not np.array_equal(both[0], both[1])
    assert both.std() == pytest.approx(0.3, rel=0.05)


# ---- the attack


@pytest.fixture(scope="module")
def attacked(classifier: Classifier, digits: Digits) -> np.ndarray:
    pytest.importorskip("art")
    return square_attack(classifier, digits[0][:20], digits[1][:20], 0.3, 40, SEED)


def test_an_attack_keeps_to_its_budget_and_misleads(
    classifier: Classifier,
    digits: Digits,
    attacked: np.ndarray,
):
    images, labels = digits[0][:20], digits[1][:20]
    assert attacked.dtype == np.float32
    assert np.abs(attacked).max() <= 1
    assert 0.29 < np.abs(attacked - images).max() <= 0.3 + 1e-6
    assert (classifier.predict(attacked) == labels).mean() < (classifier.predict(images) == labels).mean()


def share_alike(actual: np.ndarray, expected: np.ndarray) -> float:
    """Of the attacked images. An attack keeps a square if that lowers the margin, which rounding can decide."""
    return float((np.abs(actual - expected).max(axis=(1, 2, 3)) < 1e-5).mean())


@pytest.mark.numerical
def test_an_attack_depends_on_its_seed_alone(
    classifier: Classifier,
    digits: Digits,
    attacked: np.ndarray,
):
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


def test_no_budget_no_attack(classifier: Classifier, digits: Digits):
    pytest.importorskip("art")
    assert np.array_equal(square_attack(classifier, *digits, 0, 5, SEED), digits[0])
    with pytest.raises(InputError):
        square_attack(classifier, *digits, -0.1, 5, SEED)
    with pytest.raises(InputError):
        square_attack(classifier, *digits, 0.1, 0, SEED)


def test_without_the_toolbox_the_message_says_what_to_install(
    classifier: Classifier,
    digits: Digits,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setitem(sys.modules, "art.attacks.evasion", None)
    with pytest.raises(MissingExtraError, match=r"pip install .*\[evaluate\]"):
        square_attack(classifier, *digits, 0.1, 5, SEED)


def test_without_a_classifier_there_is_nothing_to_attack(bcm: BCM, digits: Digits):
    train, test = load_digits("train"), load_digits("test")
    blind = Judge(None, train, test, extractor=train_classifier(load_digits("validation")))
    with pytest.raises(LabelError):
        measure_purification(bcm, blind, *digits, SEED)


# ---- colours


class Painter:
    """A stand-in for a model of colour images: gives the grey image a tint that leaves its brightness."""

    num_classes = None

    def colorize(self, grey: np.ndarray, **_: object) -> np.ndarray:
        tint = np.array([0.114, 0, -0.299], np.float32).reshape(1, 3, 1, 1)  # of brightness 0
        return np.clip(grey + 0.5 * tint, -1, 1)


def test_right_hues():
    colours = np.zeros((1, 3, 1, 4), np.float32) - 1
    colours[0, 0] = 1  # red everywhere
    other = colours.copy()
    other[0, 2, 0, 0] = 1  # magenta once
    other[0, 1, 0, 1] = other[
        0, 2, 0, 2
    ] = -0.8  # and twice a red that is nearly the same, on either side of it
    assert right_hues(other, colours) == 0.75
    assert right_hues(np.zeros_like(colours), colours) == 0
    assert np.isnan(right_hues(colours, np.zeros_like(colours)))


def test_colouring_is_held_against_what_was_left_grey(judge: Judge):
    class Seen:  # the judge's features are of grey digits
        extractor = type("Mean", (), {"features": staticmethod(lambda x: x.reshape(len(x), -1)[:, :3])})
        features = np.random.default_rng(0).normal(size=(50, 3))

    images = np.random.default_rng(1).uniform(-0.5, 0.5, (6, 3, 8, 8)).astype(np.float32)
    painter, seen = cast("BCM", Painter()), cast("Judge", Seen())
    left, painted = measure_colouring(painter, seen, images, None, SEED, {"painted": COLOURING})
    assert (left.method, left.schedule, left.hues) == ("left grey", None, 0)
    assert left.grey_error < 1e-6
    assert painted.grey_error < 1e-6
    assert to_grey(images).shape == (6, 1, 8, 8)


def few_restorations(*arguments, **keywords):
    return measure_restoration(*arguments, **keywords, degradations=DEGRADATIONS[:2])


def titles(shown: list[Exhibit], kind: type) -> list[str]:
    return [exhibit.title for exhibit in shown if isinstance(exhibit, kind)]
