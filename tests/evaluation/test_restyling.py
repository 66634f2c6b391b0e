"""Restyling is measured on pairs of images of one thing in two classes.

The model is exact: an image is the mean of its class and a rest. An image of a thing in another class has
the other mean and the same rest, so restyling finds it, up to the noise of the inversion.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from gaussian import ClassGaussianBackend, class_mean

import bcm_edge
from bcm_edge import BCM
from bcm_edge.evaluation import tasks
from bcm_edge.evaluation.classifier import Classifier
from bcm_edge.evaluation.data import held_out
from bcm_edge.evaluation.exhibits import Gallery, Table
from bcm_edge.evaluation.quality import Judge
from bcm_edge.evaluation.report import values
from bcm_edge.evaluation.task_restyling import (
    AS_OFTEN,
    INPUT,
    LEAST,
    RANDOM,
    held_out_pairs,
    measure_restyling,
    measured_pairs,
    renoising,
)
from bcm_edge.runtime.storage.manifest import ModelFacts
from bcm_edge.training.data import load_dataset
from bcm_edge.training.dataset import Dataset

THINGS, CLASSES = 16, (0, 5, 9)


class NearestMean:
    """Sees the class whose mean is nearest to that of the image. The feature is the image itself."""

    name = "pixels"

    def predict(self, images: np.ndarray) -> np.ndarray:
        distances = np.abs(images.mean(axis=(1, 2, 3))[:, None] - class_mean(np.array(CLASSES))[:, 0, 0, 0])
        return np.array(CLASSES)[distances.argmin(axis=1)]

    def features(self, images: np.ndarray) -> np.ndarray:
        return images.reshape(len(images), -1)


def drawings(seed: int) -> Dataset:
    """Things in three classes, in random order: a rest of standard deviation 0.2 on the mean of the class."""
    rests = np.random.default_rng(seed).normal(0, 0.2, (THINGS, 1, 8, 8)).astype(np.float32)
    rests -= rests.mean(axis=(2, 3), keepdims=True)
    things, labels = np.repeat(np.arange(THINGS), 3), np.tile(CLASSES, THINGS)
    order = np.random.default_rng(seed + 1).permutation(len(things))
    things, labels = things[order], labels[order]
    images = torch.from_numpy(np.clip(rests[things] + class_mean(labels), -1, 1))
    return Dataset("things", images, torch.from_numpy(labels), names=tuple(f"thing {k:02d}" for k in things))


@pytest.fixture(scope="module")
def known(digits_bundle: Path) -> Iterator[BCM]:
    """The exact model."""
    with bcm_edge.load(digits_bundle) as bcm:
        yield BCM(bcm.bundle, ClassGaussianBackend())


@pytest.fixture(scope="module")
def pair_judge() -> Judge:
    """A judge with 16 things in three classes."""
    classifier = NearestMean()
    return Judge(cast(Classifier, classifier), drawings(0), drawings(2), classifier)


def test_pairs_are_the_images_of_one_name_in_two_classes(pair_judge: Judge):
    pairs = held_out_pairs(pair_judge)
    assert len(pairs) == THINGS * 6
    assert pairs.names[:7] == ("thing 00",) * 6 + ("thing 01",)
    assert [*zip(pairs.labels[:6], pairs.targets[:6], strict=True)] == [
        *((0, 5), (0, 9), (5, 0), (5, 9), (9, 0), (9, 5))
    ]
    rest = pairs.inputs - class_mean(pairs.labels)
    np.testing.assert_allclose(rest + class_mean(pairs.targets), pairs.truths, atol=0.2)  # some are clipped
    choosing, measured = measured_pairs(pairs)
    assert (len(choosing), len(measured)) == (4 * 6, 12 * 6)
    assert not set(choosing.names) & set(measured.names)


def test_exact_model_restyles_better_than_re_noising(known: BCM, pair_judge: Judge):
    rows = measure_restyling(known, pair_judge, held_out_pairs(pair_judge), seed=3)
    assert [row.method for row in rows] == [INPUT, RANDOM, *["restyle", LEAST, AS_OFTEN] * 3]
    itself, random, first, least, often, *_ = rows
    # Differences of class means are .5, .4 and .9 in [-1, 1], so .25, .2 and .45 in [0, 1].
    assert itself.error == pytest.approx((0.25**2 + 0.2**2 + 0.45**2) / 3, rel=0.05)
    assert itself.spread < 0.005
    # Two independent rests of standard deviation .1 in [0, 1].
    assert random.error == pytest.approx(2 * 0.1**2, rel=0.1)
    assert first.error < 0.003 < least.error <= often.error  # .035² is the noise of the inversion
    assert (first.agreement, itself.agreement, often.agreement) == (1, 0, 1)
    assert (first.nearer, itself.nearer) == (1, 0)
    assert first.distance < 0.5 * random.distance
    calls = [row.schedule.nfe for row in rows if row.schedule]
    assert calls == [2, 2, 2, 3, 3, 3, 6, 6, 6]
    assert str(rows[8].schedule).endswith("1.25>80>0.4>0.002 +0.1 0.1>1.2>0.002")  # invert-2, then mixture-4


def test_re_noising_has_two_forms_at_every_level():
    texts = [str(schedule) for schedule in renoising(3)]
    assert len(texts) == 18
    assert texts[10:12] == [
        *("+8 8>0.504>0.0317>0.002", "+8 8>0.002 +0.504 0.504>0.002 +0.0317 0.0317>0.002")
    ]
    assert {schedule.nfe for schedule in renoising(3)} == {3}
    assert [str(schedule) for schedule in renoising(1)][-1] == "+80 80>0.002"


def test_report_has_a_table_and_a_gallery(known: BCM, pair_judge: Judge, monkeypatch: pytest.MonkeyPatch):
    run = tasks.Run(known, pair_judge, pair_judge.images, pair_judge.labels, 3, None)
    table, gallery = tasks._restyling(run)
    assert isinstance(table, Table) and isinstance(gallery, Gallery)
    assert {len(row) for row in table.rows} == {len(table.columns)}
    assert table.note.startswith("Of 72 pairs of images of one thing in two classes (12 things), ")
    stored = values(table)
    assert stored["rows"][2][:3] == ["restyle", 2, "+0.07 0.07>80>0.002"]
    restyled_rows = ["restyled, 3 network calls", "restyled, 6 network calls"]
    assert list(gallery.rows) == ["input", *restyled_rows, "true image"]
    given, restyled, _, true = gallery.images.reshape(4, 8, 1, 8, 8)
    assert np.abs(restyled - true).mean() < 0.1 < np.abs(given - true).mean()
    assert gallery.headings[:3] == ["0 → 5", "0 → 9", "5 → 0"]


def test_too_few_pairs_are_not_measured(known: BCM):
    data = drawings(0)
    alone = Dataset("x", data.images, data.labels, names=tuple(f"thing {k}" for k in range(len(data))))
    classifier = NearestMean()
    judge = Judge(cast(Classifier, classifier), data, alone, classifier)
    (table,) = tasks._restyling(tasks.Run(known, judge, judge.images, judge.labels, 0, None))
    assert isinstance(table, Table)
    assert table.note == "Not measured: fewer than 4 held-out things have images in two classes."


def npz(path: Path, **arrays: Any) -> str:
    """Write 200 images of 20 things in ten classes. Return the path."""
    images = np.random.default_rng(0).integers(0, 256, (200, 8, 8), np.uint8)
    labels, names = np.arange(200) % 10, np.array([f"thing {k // 10}" for k in range(200)])
    np.savez(path, **{"images": images, "labels": labels, "names": names, **arrays})
    return str(path)


def test_images_of_one_name_are_held_out_together(tmp_path: Path):
    facts = ModelFacts("digits", (1, 8, 8), 10, 0, {})
    train, real = held_out(npz(tmp_path / "d.npz"), facts, digits="test")
    assert (len(train), len(real)) == (160, 40)
    assert train.names and real.names
    assert len(set(real.names)) == 4 and not set(real.names) & set(train.names)
    assert real.names != tuple(sorted(real.names))  # shuffled
    whole = load_dataset(str(tmp_path / "d.npz"))
    for image, name in zip(real.images, real.names, strict=True):
        row = int(torch.where((whole.images == image).all(dim=(1, 2, 3)))[0])
        assert whole.names and whole.names[row] == name


@pytest.mark.parametrize("names", [np.array(["a", "b"]), np.arange(200)])
def test_array_names_with_other_content_is_not_used(tmp_path: Path, names: np.ndarray):
    dataset = load_dataset(npz(tmp_path / "d.npz", names=names))
    assert dataset.names is None
    assert dataset.notes[0].startswith(f"d.npz: `names` is not used: it has shape [{len(names)}] and type ")
