"""The classifier whose activations are the features of digits."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from agreement import relative_l2
from torch.optim.optimizer import register_optimizer_step_pre_hook

from bcm_edge.errors import LabelError
from bcm_edge.evaluation import classifier as classifiers
from bcm_edge.evaluation.classifier import Classifier, train_classifier
from bcm_edge.training.data import load_digits
from bcm_edge.training.dataset import Dataset


def test_the_classifier_says_what_its_features_are(classifier: Classifier):
    assert classifier.name == "64 activations of a small CNN fitted to digits (train)"
    assert classifier.features(np.zeros((2, 1, 8, 8), np.float32)).shape == (2, 64)


def rates(data: Dataset) -> Counter[float]:
    """Learning rate → steps taken with it."""
    seen: Counter[float] = Counter()
    handle = register_optimizer_step_pre_hook(
        lambda optimizer, *_: seen.update([optimizer.param_groups[0]["lr"]])
    )
    try:
        train_classifier(data)
    finally:
        handle.remove()
    return seen


@pytest.mark.slow
def test_digits_are_seen_15_times_and_large_sets_as_often_as_steps_allow(monkeypatch: pytest.MonkeyPatch):
    digits = load_digits("train")
    assert rates(digits) == {5e-3 * (1 - epoch / 15): 20 for epoch in range(15)}
    monkeypatch.setattr(classifiers, "MAX_STEPS", 30)
    assert rates(digits) == {5e-3 * (1 - part / 15): 2 for part in range(15)}


@pytest.mark.parametrize(("size", "halvings"), [(8, 0), (16, 0), (17, 1), (28, 1), (64, 2)])
def test_larger_pictures_are_halved_first(size: int, halvings: int):
    strides = [
        module.stride
        for module in Classifier(3, size, 10, "none").modules()
        if isinstance(module, torch.nn.Conv2d)
    ]
    assert strides == [(2, 2)] * halvings + [(1, 1)] * 2


@pytest.mark.slow
def test_the_classifier_knows_larger_pictures():
    train, test = (load_digits(part) for part in ("train", "test"))
    larger = [
        replace(data, images=data.images.repeat_interleave(4, 2).repeat_interleave(4, 3))
        for data in (train, test)
    ]
    found = train_classifier(larger[0]).predict(larger[1].images.numpy())
    assert test.labels is not None
    assert (found == test.labels.numpy()).mean() >= 0.95


@pytest.mark.numerical
def test_passes_of_a_few_images_change_nothing(classifier: Classifier, monkeypatch: pytest.MonkeyPatch):
    images = load_digits("validation").images.numpy()
    whole, labels = classifier.features(images), classifier.predict(images)
    monkeypatch.setattr(classifiers, "PIXELS", 64 * 7)
    np.testing.assert_allclose(classifier.features(images), whole, atol=1e-5)
    assert np.array_equal(classifier.predict(images), labels)


def test_a_classifier_needs_labels():
    with pytest.raises(LabelError, match=r"digits .*has no labels"):
        train_classifier(replace(load_digits("validation"), labels=None))


def test_the_classifier_knows_digits(judge):
    assert judge.accuracy >= 0.97


@pytest.mark.numerical
def test_fitting_a_classifier_depends_on_nothing_before_and_changes_nothing_after(judge):
    few = load_digits("validation")
    state = torch.get_rng_state()
    first = train_classifier(few).features(judge.images)
    assert torch.equal(state, torch.get_rng_state())
    torch.manual_seed(99)
    # Training amplifies rounding: features were up to 0.11 away. With another seed they are 1.1 away.
    assert relative_l2(train_classifier(few).features(judge.images), first) < 0.5
