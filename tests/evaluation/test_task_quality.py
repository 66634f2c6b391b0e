"""How well the shipped model does what inversion opens, on digits it was not trained on; and what the measures of it promise.

The bounds have slack: each stands well inside what the validation digits gave, and the test digits are
measured.
"""

from __future__ import annotations

import numpy as np
import pytest

from bcm_edge import BCM
from bcm_edge.errors import LabelError, MissingExtraError
from bcm_edge.evaluation.classifier import train_classifier
from bcm_edge.evaluation.degradations import DEGRADATIONS
from bcm_edge.evaluation.exhibits import Curves, Exhibit, Gallery, Table
from bcm_edge.evaluation.quality import Judge
from bcm_edge.evaluation.task_constrained import inpainting_methods, measure_inpainting, measure_upscaling
from bcm_edge.evaluation.task_measures import (
    measure_purification,
    measure_reconstruction,
    measure_restoration,
    measure_variations,
)
from bcm_edge.evaluation.tasks import Run, _purification, task_exhibits
from bcm_edge.runtime.tasks.constrained import UPSCALING
from bcm_edge.training.data import load_digits

SEED = 7


Digits = tuple[np.ndarray, np.ndarray]


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


def test_exhibits_of_every_task(bcm: BCM, judge: Judge, digits: Digits, monkeypatch: pytest.MonkeyPatch):
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
    bcm: BCM, judge: Judge, digits: Digits, monkeypatch: pytest.MonkeyPatch
):
    def missing(*_: object, **__: object) -> None:
        raise MissingExtraError("the toolbox is not there")

    monkeypatch.setattr("bcm_edge.evaluation.task_measures.square_attack", missing)
    (table,) = _purification(Run(bcm, judge, *digits, SEED, None))
    assert isinstance(table, Table)
    assert table.note == "Not measured: the toolbox is not there."


def test_without_a_classifier_there_is_nothing_to_attack(bcm: BCM, digits: Digits):
    train, test = load_digits("train"), load_digits("test")
    blind = Judge(None, train, test, extractor=train_classifier(load_digits("validation")))
    with pytest.raises(LabelError):
        measure_purification(bcm, blind, *digits, SEED)


def few_restorations(*arguments, **keywords):
    return measure_restoration(*arguments, **keywords, degradations=DEGRADATIONS[:2])


def titles(shown: list[Exhibit], kind: type) -> list[str]:
    return [exhibit.title for exhibit in shown if isinstance(exhibit, kind)]
