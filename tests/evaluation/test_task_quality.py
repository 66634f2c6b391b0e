"""The quality of the tasks that need inversion, with the shipped model on digits that it was not trained on.

The bounds leave room: each lies well inside the values on the validation digits, and the test digits are
measured.
"""

from __future__ import annotations

from functools import partial

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


def test_inpainting_is_better_than_the_loop_of_consistency_models(bcm: BCM, judge: Judge, digits: Digits):
    kinds = inpainting_methods((1, 8, 8))
    chosen = {name: kinds[name] for name in ("ours", "consistency loop, Karras levels")}
    results = measure_inpainting(bcm, judge, *digits, SEED, chosen)
    ours, theirs = ([result for result in results if result.method == name] for name in chosen)
    assert {result.schedule.nfe for result in results} == {8}
    assert all(result.exact for result in results)
    assert np.mean([r.error for r in ours]) < 0.95 * np.mean([r.error for r in theirs])
    assert np.mean([r.frechet for r in ours]) < np.mean([r.frechet for r in theirs])


def test_restoration_reduces_the_distance_to_digits_and_to_the_original(
    bcm: BCM, judge: Judge, digits: Digits
):
    templates, strengths = ("+{0} {0}>5>0.002",), (0.2,)
    degraded, restored = measure_restoration(
        bcm, judge, *digits, SEED, DEGRADATIONS[:1], templates, strengths
    )
    assert (degraded.degradation, degraded.nfe, restored.nfe) == ("JPEG 10", 0, 2)
    assert restored.frechet < 0.5 * degraded.frechet
    assert restored.psnr > degraded.psnr
    assert restored.ssim > degraded.ssim


def test_purification_removes_an_attack(bcm: BCM, judge: Judge, digits: Digits):
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
def test_model_guesses_the_labels_of_digits(bcm: BCM, digits: Digits):
    assert (bcm.guess_labels(digits[0], seed=SEED) == digits[1]).mean() >= 0.9


def test_upscaling_is_better_than_interpolation_and_keeps_block_means(bcm: BCM, judge: Judge, digits: Digits):
    measured = measure_upscaling(bcm, judge, *digits, SEED, schedules={"ours": UPSCALING})
    results = {result.method: result for result in measured}
    assert results["ours"].frechet < 0.3 * results["bicubic"].frechet
    assert results["ours"].frechet < 0.3 * results["nearest neighbour"].frechet
    assert results["ours"].error < 0.8 * results["bicubic"].error
    assert results["ours"].small_error < 1e-6
    assert results["bicubic"].small_error > 0.1


def test_reconstruction_is_better_with_more_calls(bcm: BCM, digits: Digits):
    first, second = measure_reconstruction(bcm, *digits, SEED)
    assert (first.name, second.name) == ("invert-1", "invert-2")
    assert second.error < 0.9 * first.error
    assert first.by_pixel.shape == (8, 8)
    assert first.by_pixel.mean() == pytest.approx(first.error)
    assert first.by_pixel[:, 0].mean() < 0.2 * first.error  # the left edge is empty in every digit


def test_variations_differ_more_with_strength_and_keep_their_class(bcm: BCM, judge: Judge, digits: Digits):
    results = measure_variations(bcm, judge, *digits, SEED, (0.0, 0.3, 1.0))
    errors = [result.error for result in results]
    assert errors == sorted(errors)
    assert errors[2] > 5 * errors[0]
    assert all(result.agreement is not None and result.agreement > 0.9 for result in results)


def test_every_task_has_exhibits(bcm: BCM, judge: Judge, digits: Digits, monkeypatch: pytest.MonkeyPatch):
    few_restorations = partial(measure_restoration, degradations=DEGRADATIONS[:2])
    monkeypatch.setattr("bcm_edge.evaluation.tasks.measure_restoration", few_restorations)
    progress: list[str] = []
    pytest.importorskip("art")
    monkeypatch.setattr("bcm_edge.evaluation.tasks.ATTACKED", 4)
    monkeypatch.setattr("bcm_edge.evaluation.task_galleries.PICTURES", 2)
    monkeypatch.setattr("bcm_edge.evaluation.task_galleries.PAIRS", 1)
    exhibits = task_exhibits(bcm, judge, digits[0][:20], digits[1][:20], SEED, progress.append)
    assert titles(exhibits, Table) == [
        "Inpainting",
        "Restoration",
        "Purification",
        "Variations",
        "Upscaling by 2",
        "Reconstruction errors",
    ]
    assert titles(exhibits, Curves) == ["Restoration of JPEG: distance over network calls"]
    assert len(titles(exhibits, Gallery)) == 8
    for exhibit in exhibits:
        if isinstance(exhibit, Gallery):
            assert exhibit.images.dtype == np.float32
            assert np.abs(exhibit.images).max() <= 1
            assert len(exhibit.images) % exhibit.columns == 0
            assert len(exhibit.rows) in (0, len(exhibit.images) // exhibit.columns)
        if isinstance(exhibit, Table):
            assert exhibit.rows
            assert {len(row) for row in exhibit.rows} == {len(exhibit.columns)}
    assert any("inpainting" in line for line in progress)


def test_table_names_the_reason_for_a_missing_attack(
    bcm: BCM, judge: Judge, digits: Digits, monkeypatch: pytest.MonkeyPatch
):
    def missing(*_: object, **__: object) -> None:
        raise MissingExtraError("the toolbox is not there")

    monkeypatch.setattr("bcm_edge.evaluation.task_measures.square_attack", missing)
    (table,) = _purification(Run(bcm, judge, *digits, SEED, None))
    assert isinstance(table, Table)
    assert table.note == "Not measured: the toolbox is not there."


def test_purification_without_a_classifier_is_refused(bcm: BCM, digits: Digits):
    train, test = load_digits("train"), load_digits("test")
    blind = Judge(None, train, test, extractor=train_classifier(load_digits("validation")))
    with pytest.raises(LabelError):
        measure_purification(bcm, blind, *digits, SEED)


def titles(exhibits: list[Exhibit], kind: type) -> list[str]:
    """Return the titles of all exhibits of a kind."""
    return [exhibit.title for exhibit in exhibits if isinstance(exhibit, kind)]
