"""The judge: scores of images, the images that it chooses, and what it needs labels for."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from digit_images import noisy

from bcm_edge.errors import ImageError, LabelError
from bcm_edge.evaluation.classifier import Classifier
from bcm_edge.evaluation.distances import frechet_distance
from bcm_edge.evaluation.quality import Judge
from bcm_edge.model.checkpoint import load_checkpoint, shipped_checkpoint
from bcm_edge.model.player import TorchBackend
from bcm_edge.runtime.pixels import mean_squared_error
from bcm_edge.runtime.schedule import ONE_STEP, parse_schedule
from bcm_edge.training.data import load_digits

INVERSION = parse_schedule("+0.07 0.07>80")
CONDITIONAL: Any = SimpleNamespace(num_classes=10)  # the part of a backend that is read before a refusal


class Brightness:
    """An extractor of two numbers per image. `seen` lists the images of each call."""

    name = "mean and standard deviation"

    def __init__(self) -> None:
        self.seen: list[np.ndarray] = []

    def features(self, images: np.ndarray) -> np.ndarray:
        self.seen.append(images)
        return np.stack([images.mean(axis=(1, 2, 3)), images.std(axis=(1, 2, 3))], axis=1)


@pytest.mark.numerical
def test_real_images_have_ratio_1_and_their_own_distances(judge: Judge):
    train = load_digits("train").images.numpy()
    again = judge.scores(train)
    distances = (judge.reference.frechet, judge.reference.kid)
    assert (again.frechet, again.kid) == pytest.approx(distances, rel=1e-3)
    # One image in a hundred may lie at the edge of a ball, where rounding decides.
    shares = (judge.reference.precision, judge.reference.recall)
    assert (again.precision, again.recall) == pytest.approx(shares, abs=0.01)
    assert judge.reference.ratio == pytest.approx(1)
    assert judge.reference.frechet == pytest.approx(judge.floor)
    assert abs(judge.reference.kid) < 0.1
    assert min(judge.reference.precision, judge.reference.recall) > 0.8


def test_scores_fall_with_noise_and_with_missing_classes(judge: Judge):
    digits = load_digits("train")
    damaged = judge.scores(noisy(digits.images.numpy(), 0.8))
    assert damaged.ratio > 10
    assert damaged.kid > 10 * abs(judge.reference.kid)
    assert damaged.precision < judge.reference.precision - 0.2
    assert digits.labels is not None
    few = judge.scores(digits.images[digits.labels < 3].numpy())  # three classes of ten
    assert few.precision > 0.8
    assert few.recall < 0.5


def test_ratio_grows_with_noise(judge: Judge):
    train = load_digits("train").images.numpy()
    noise = np.random.default_rng(0).standard_normal(train.shape).astype(np.float32)
    ratios = [judge.ratio(train + np.float32(strength) * noise) for strength in (0, 0.2, 0.4, 0.8)]
    assert ratios[0] == pytest.approx(1)
    assert ratios == sorted(ratios)
    assert ratios[3] > 10


def test_features_and_floor_are_those_of_the_extractor(classifier: Classifier):
    train, test = load_digits("train"), load_digits("test")
    judge = Judge(classifier, train, test, Brightness())
    real = Brightness().features(test.images.numpy())
    assert judge.floor == pytest.approx(frechet_distance(Brightness().features(train.images.numpy()), real))
    negative = -test.images.numpy()
    scores = judge.scores(negative)
    assert scores.frechet == pytest.approx(frechet_distance(Brightness().features(negative), real))
    assert scores.ratio == pytest.approx(judge.ratio(negative))
    assert judge.accuracy >= 0.97


def labelled(images: np.ndarray, labels: np.ndarray) -> set[tuple[bytes, int]]:
    """Return the pairs of an image and its label."""
    return {(image.tobytes(), int(label)) for image, label in zip(images, labels, strict=True)}


def test_chosen_images_keep_their_labels_and_are_always_the_same(classifier: Classifier):
    """The floor is that of as many real images as are generated."""
    train, test = load_digits("train"), load_digits("test")
    extractor = Brightness()
    judge, again = (Judge(classifier, train, test, extractor, samples=100, reconstructed=7) for _ in range(2))
    assert (judge.samples, len(judge.images), len(judge.originals)) == (100, len(test), 7)
    assert judge.floor == pytest.approx(again.floor)
    chosen = next(images for images in extractor.seen if len(images) == 100)
    assert judge.floor == pytest.approx(frechet_distance(Brightness().features(chosen), judge.features))
    assert train.labels is not None
    assert test.labels is not None
    assert judge.sample_labels is not None
    assert judge.original_labels is not None
    assert labelled(chosen, judge.sample_labels) <= labelled(train.images.numpy(), train.labels.numpy())
    held_out = labelled(test.images.numpy(), test.labels.numpy())
    assert labelled(judge.originals, judge.original_labels) <= held_out
    assert np.bincount(judge.sample_labels, minlength=10).min() >= 1


@pytest.mark.numerical
def test_chosen_number_of_images_is_generated_and_inverted(classifier: Classifier):
    judge = Judge(classifier, load_digits("train"), load_digits("test"), samples=100, reconstructed=7)
    backend = TorchBackend(load_checkpoint(shipped_checkpoint()).model())
    images = judge.generate(ONE_STEP, backend, 5)
    assert images.shape == (100, 1, 8, 8)
    assert judge.agreement(images) > 0.9
    latents = judge.invert(INVERSION, backend, 5)
    reconstructed = judge.reconstruct(latents, backend)
    assert latents.shape == reconstructed.shape == (7, 1, 8, 8)
    error = judge.reconstruction_error(INVERSION, backend, 5)
    # Images are rounded to uint8 before they are compared. A few values may be rounded either way.
    expected = mean_squared_error(reconstructed, judge.originals).mean()
    assert error == pytest.approx(expected, rel=1e-2)
    assert error < 0.02


@pytest.mark.parametrize(
    ("numbers", "number"), [({"samples": 1258}, 1258), ({"samples": 3}, 3), ({"reconstructed": 361}, 361)]
)
def test_more_images_than_the_data_has_are_refused(
    classifier: Classifier, numbers: dict[str, int], number: int
):
    with pytest.raises(ImageError, match=rf"cannot take {number} of its \d+ images"):
        Judge(classifier, load_digits("train"), load_digits("test"), extractor=None, **numbers)


def test_data_without_labels_is_refused_only_where_labels_are_needed():
    train, test = (replace(load_digits(part), labels=None) for part in ("train", "test"))
    judge = Judge(None, train, test, Brightness(), samples=10)
    assert judge.scores(test.images.numpy()).precision == 1
    for needs_labels in (
        lambda: judge.generate(ONE_STEP, CONDITIONAL, 0),
        lambda: judge.invert(INVERSION, CONDITIONAL, 0),
        lambda: judge.agreement(test.images.numpy()[:10]),
        lambda: judge.accuracy,
    ):
        with pytest.raises(LabelError, match="without labels; use an npz file"):
            needs_labels()
    with pytest.raises(LabelError, match="give a feature extractor"):
        Judge(None, train, test)


def test_accuracy_needs_a_classifier():
    judge = Judge(None, load_digits("train"), load_digits("test"), Brightness())
    with pytest.raises(LabelError, match="no classifier was trained"):
        _ = judge.accuracy
