"""The measures of images with answers known beforehand: distances between sets, likeness of pairs, the sources of features, the judge."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch.optim.optimizer import register_optimizer_step_pre_hook

from bcm_edge.errors import ImageError, LabelError
from bcm_edge.evaluation import classifier as classifiers
from bcm_edge.evaluation import distances
from bcm_edge.evaluation.classifier import Classifier, train_classifier
from bcm_edge.evaluation.distances import frechet_distance, kernel_distance, precision_recall
from bcm_edge.evaluation.quality import Judge
from bcm_edge.model.checkpoint import load_checkpoint, shipped_checkpoint
from bcm_edge.model.player import TorchBackend
from bcm_edge.runtime.pixels import from_uint8, mean_squared_error
from bcm_edge.runtime.schedule import ONE_STEP, parse_schedule
from bcm_edge.training.data import load_digits
from bcm_edge.training.dataset import Dataset

INVERSION = parse_schedule("+0.07 0.07>80")
CONDITIONAL: Any = SimpleNamespace(num_classes=10)  # as much of a backend as is looked at before a refusal


def with_moments(mean: np.ndarray, cov: np.ndarray, n: int = 500) -> np.ndarray:
    """n points whose sample mean and covariance are exactly these."""
    x = np.random.default_rng(3).standard_normal((n, len(mean)))
    x -= x.mean(axis=0)
    x = x @ np.linalg.inv(np.linalg.cholesky(np.cov(x, rowvar=False))).T
    return x @ np.linalg.cholesky(cov).T + mean


def features(n: int) -> st.SearchStrategy[np.ndarray]:
    return arrays(np.float64, (n, 3), elements=st.floats(-4, 4, width=32))


# ---- Fréchet distance


def test_frechet_distance_of_a_shift_is_its_square():
    x = with_moments(np.zeros(3), np.eye(3))
    assert frechet_distance(x, x + np.array([3, 4, 0])) == pytest.approx(25)


def test_frechet_distance_of_two_scales():
    """Commuting covariances: Σ (σ_a - σ_b)²."""
    a = with_moments(np.zeros(2), np.diag([1.0, 4.0]))
    b = with_moments(np.zeros(2), np.diag([9.0, 25.0]), n=800)
    assert frechet_distance(a, b) == pytest.approx((1 - 3) ** 2 + (2 - 5) ** 2)


def test_frechet_distance_where_covariances_do_not_commute():
    """For 2×2 matrices tr (AB)^½ = √(tr AB + 2 √det AB); here tr AB = 2 + 18 and det AB = 3 · 9."""
    cov_a, cov_b = np.array([[2.0, 1.0], [1.0, 2.0]]), np.array([[1.0, 0.0], [0.0, 9.0]])
    expected = 4 + 10 - 2 * np.sqrt(20 + 2 * np.sqrt(27))
    assert frechet_distance(
        with_moments(np.zeros(2), cov_a), with_moments(np.zeros(2), cov_b)
    ) == pytest.approx(expected)


def test_frechet_distance_is_symmetric_and_zero_on_itself():
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((50, 8)), rng.standard_normal((70, 8)) * 2
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a))


def test_frechet_distance_with_features_that_are_always_zero():
    """ReLU features can be dead: singular covariances must not give NaN."""
    x = np.zeros((10, 3))
    assert frechet_distance(x, x + 1) == pytest.approx(3)


@given(features(6), features(5), st.floats(-8, 8))
def test_frechet_distance_does_not_depend_on_the_origin(a: np.ndarray, b: np.ndarray, shift: float):
    assert frechet_distance(a + shift, b + shift) == pytest.approx(
        frechet_distance(a, b), rel=1e-6, abs=1e-5
    )  # √ of rounding at 0


# ---- kernel distance


def test_kernel_distance_of_two_pairs_of_points():
    """x·y/2 of (0, 0), (1, 1) and (1, 1), (2, 2): within (0 + 1)³ and (2 + 1)³, between the mean of 1, 1, 2³ and 3³."""
    a, b = np.array([[0.0, 0.0], [1, 1]]), np.array([[1.0, 1.0], [2, 2]])
    assert kernel_distance(a, b) == pytest.approx(1 + 27 - 2 * 37 / 4)


def test_kernel_distance_of_sets_of_two_sizes():
    """In one dimension, 0, 1, 2 against 1, 3: within the means of 1, 1, 3³ and 4³, between that of 1, 1, 2³, 4³, 3³ and 7³."""
    a, b = np.array([[0.0], [1], [2]]), np.array([[1.0], [3]])
    assert kernel_distance(a, b) == pytest.approx(29 / 3 + 64 - 2 * 444 / 6)


def test_kernel_distance_of_one_distribution_lies_on_both_sides_of_0():
    rng = np.random.default_rng(0)
    same = [kernel_distance(*rng.standard_normal((2, 60, 8))) for _ in range(60)]
    assert min(same) < -0.01
    assert abs(np.mean(same)) < 0.005
    assert kernel_distance(rng.standard_normal((60, 8)), rng.standard_normal((60, 8)) + 1) > 1


@given(features(6), features(4))
def test_kernel_distance_is_symmetric_and_knows_no_order(a: np.ndarray, b: np.ndarray):
    there = kernel_distance(a, b)
    assert kernel_distance(b, a) == pytest.approx(there, rel=1e-9, abs=1e-9)
    assert kernel_distance(a[::-1], b[::-1]) == pytest.approx(there, rel=1e-9, abs=1e-9)


def test_distances_of_float32_features_are_computed_in_float64():
    a, b = (np.random.default_rng(i).standard_normal((20, 4)).astype(np.float32) + 100 for i in (0, 1))
    for distance in (kernel_distance, frechet_distance):
        assert distance(a, b) == pytest.approx(distance(a.astype(np.float64), b.astype(np.float64)), rel=1e-9)


# ---- precision and recall


def test_precision_and_recall_of_a_set_with_itself():
    x = np.random.default_rng(0).standard_normal((40, 5))
    assert precision_recall(x, x) == (1, 1)


def test_precision_and_recall_of_sets_far_apart():
    x = np.random.default_rng(0).standard_normal((40, 5))
    assert precision_recall(x, x + 100) == (0, 0)


def test_samples_of_one_mode_of_two_are_precise_and_miss_half():
    rng = np.random.default_rng(0)
    modes = rng.standard_normal((2, 200, 2)) + np.array([[[0.0, 0]], [[100, 0]]])
    assert precision_recall(modes.reshape(-1, 2), modes[0]) == (1, 0.5)
    precision, recall = precision_recall(modes.reshape(-1, 2), rng.standard_normal((200, 2)))
    assert precision >= 0.9
    assert 0.45 <= recall <= 0.5


@pytest.mark.parametrize(("k", "expected"), [(1, (0, 0)), (3, (0.5, 1))])
def test_balls_reach_to_the_kth_other_sample(k: int, expected: tuple[float, float]):
    """The third neighbours of 0, 1, 2, 3 lie 3, 2, 2 and 3 away, so the balls cover -3 … 6; the first lie 1 away: -1 … 4."""
    real, generated = np.array([[0.0], [1], [2], [3]]), np.array([[-3.5], [-3], [6], [6.5]])
    assert precision_recall(real, generated, k) == expected


def test_a_copy_lies_in_a_ball_without_extent():
    """Real samples that coincide, as blank images do: |x|² - 2 x·y + |y|² would put some copies beside themselves."""
    real = np.tile(np.random.default_rng(0).standard_normal((20, 64)), (5, 1))
    assert precision_recall(real, np.concatenate([real, real + 1])) == (0.5, 1)


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch):
    a, b = np.random.default_rng(0).standard_normal((2, 50, 4))
    whole = kernel_distance(a, b), *precision_recall(a, b)
    monkeypatch.setattr(distances, "BLOCK", 7)
    assert (kernel_distance(a, b), *precision_recall(a, b)) == pytest.approx(whole, rel=1e-12)


def test_sets_too_small_are_refused():
    x = np.zeros((4, 2))
    with pytest.raises(ImageError, match=r"4 and 1 images .* least is 2"):
        kernel_distance(x, x[:1])
    with pytest.raises(ImageError, match=r"3 and 4 images .* least is 4"):
        precision_recall(x[:3], x)


# ---- PSNR and SSIM


@pytest.fixture(scope="module")
def fidelity():
    pytest.importorskip("skimage", reason="scikit-image is not installed; pip install '.[evaluate]'")
    from bcm_edge.evaluation import fidelity

    return fidelity


def noisy(images: np.ndarray, strength: float) -> np.ndarray:
    noise = np.random.default_rng(1).standard_normal(images.shape).astype(np.float32)
    return images + np.float32(strength) * noise


def test_psnr_of_pixels_that_are_all_a_fifth_off(fidelity):
    a = from_uint8(np.full((2, 3, 4, 4), 100, np.uint8))
    b = a.copy()
    b[0] = from_uint8(np.full((3, 4, 4), 151, np.uint8))
    assert fidelity.psnr(a, b).tolist() == [pytest.approx(13.9794, abs=1e-4), np.inf]


def test_psnr_compares_what_is_stored(fidelity):
    """A difference that rounding removes is none."""
    a = from_uint8(np.full((1, 1, 4, 4), 100, np.uint8))
    assert fidelity.psnr(a, a + np.float32(0.3 / 127.5)).tolist() == [np.inf]
    assert np.isfinite(fidelity.psnr(a, a + np.float32(0.7 / 127.5))).all()
    assert fidelity.psnr(np.full_like(a, 1), np.full_like(a, 3)).tolist() == [np.inf]


@pytest.mark.parametrize("shape", [(5, 1, 8, 8), (5, 3, 28, 28), (5, 1, 16, 12), (5, 1, 2, 2)])
def test_ssim_is_1_of_equal_images_and_falls_with_noise(fidelity, shape: tuple[int, ...]):
    images = np.random.default_rng(0).uniform(-0.8, 0.8, shape).astype(np.float32)
    ladder = [fidelity.ssim(images, noisy(images, strength)) for strength in (0, 0.1, 0.3, 0.6)]
    assert ladder[0] == pytest.approx(np.ones(5))
    means = [values.mean() for values in ladder]
    assert means == sorted(means, reverse=True)
    assert means[3] < 0.9


def test_ssim_of_two_greys(fidelity):
    """No variance: (2 · 0.2 · 0.4 + 0.01²) / (0.2² + 0.4² + 0.01²)."""
    a, b = (from_uint8(np.full((1, 3, 16, 16), value, np.uint8)) for value in (51, 102))
    assert fidelity.ssim(a, b) == pytest.approx([0.1601 / 0.2001])


@pytest.mark.parametrize(("size", "window"), [(8, 7), (10, 9), (11, 11)])
def test_ssim_windows(fidelity, size: int, window: int):
    """Wang et al. equation 13 written out, over every window within the image: uniform below 11 pixels, else Gaussian of σ = 1.5."""
    x, y = np.random.default_rng(0).integers(0, 256, (2, size, size)).astype(np.uint8)
    line = np.exp(-0.5 * (np.arange(window) - window // 2) ** 2 / 1.5**2) if window == 11 else np.ones(window)
    weights = np.outer(line, line) / line.sum() ** 2
    values = []
    for top in range(size - window + 1):
        for left in range(size - window + 1):
            a, b = (image[top : top + window, left : left + window] / 255 for image in (x, y))
            mean_a, mean_b = (weights * a).sum(), (weights * b).sum()
            variances = (weights * (a - mean_a) ** 2).sum() + (weights * (b - mean_b) ** 2).sum()
            covariance = (weights * (a - mean_a) * (b - mean_b)).sum()
            light = (2 * mean_a * mean_b + 0.01**2) / (mean_a**2 + mean_b**2 + 0.01**2)
            values.append(light * (2 * covariance + 0.03**2) / (variances + 0.03**2))
    assert fidelity.ssim(from_uint8(x)[None, None], from_uint8(y)[None, None]) == pytest.approx(
        [np.mean(values)], rel=1e-9
    )


def test_images_of_two_shapes_are_not_compared(fidelity):
    a, b = np.zeros((2, 1, 8, 8), np.float32), np.zeros((1, 1, 8, 8), np.float32)
    for measure in (fidelity.psnr, fidelity.ssim):
        with pytest.raises(ImageError, match="pixel by pixel"):
            measure(a, b)


# ---- the classifier


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


# ---- the judge


class Brightness:
    """An extractor of two numbers; `seen` has what it was given."""

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
    assert (again.frechet, again.kid) == pytest.approx(
        (judge.reference.frechet, judge.reference.kid), rel=1e-3
    )
    # One image in a hundred may lie at the edge of a ball, inside or outside by rounding.
    shares = (judge.reference.precision, judge.reference.recall)
    assert (again.precision, again.recall) == pytest.approx(shares, abs=0.01)
    assert judge.reference.ratio == pytest.approx(1)
    assert judge.reference.frechet == pytest.approx(judge.floor)
    assert abs(judge.reference.kid) < 0.1
    assert min(judge.reference.precision, judge.reference.recall) > 0.8


def test_scores_fall_with_damage_and_with_what_is_missing(judge: Judge):
    digits = load_digits("train")
    damaged = judge.scores(noisy(digits.images.numpy(), 0.8))
    assert damaged.ratio > 10
    assert damaged.kid > 10 * abs(judge.reference.kid)
    assert damaged.precision < judge.reference.precision - 0.2
    assert digits.labels is not None
    few = judge.scores(digits.images[digits.labels < 3].numpy())  # three classes of ten
    assert few.precision > 0.8
    assert few.recall < 0.5


def test_another_extractor_gives_the_features_and_the_floor(classifier: Classifier):
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
    return {(image.tobytes(), int(label)) for image, label in zip(images, labels, strict=True)}


def test_fewer_images_are_chosen_with_their_labels_and_always_the_same(classifier: Classifier):
    """And the floor is that of as many real images as are generated."""
    train, test = load_digits("train"), load_digits("test")
    extractor = Brightness()
    judge, again = (Judge(classifier, train, test, extractor, samples=100, reconstructed=7) for _ in range(2))
    assert (judge.samples, len(judge.images), len(judge.originals)) == (100, len(test), 7)
    assert judge.floor == pytest.approx(again.floor)
    chosen = next(images for images in extractor.seen if len(images) == 100)
    assert judge.floor == pytest.approx(frechet_distance(Brightness().features(chosen), judge.features))
    assert train.labels is not None
    assert test.labels is not None
    assert judge.wanted is not None
    assert judge.original_labels is not None
    assert labelled(chosen, judge.wanted) <= labelled(train.images.numpy(), train.labels.numpy())
    assert labelled(judge.originals, judge.original_labels) <= labelled(
        test.images.numpy(), test.labels.numpy()
    )
    assert np.bincount(judge.wanted, minlength=10).min() >= 1


@pytest.mark.numerical
def test_fewer_images_are_generated_and_inverted(classifier: Classifier):
    judge = Judge(classifier, load_digits("train"), load_digits("test"), samples=100, reconstructed=7)
    backend = TorchBackend(load_checkpoint(shipped_checkpoint()).model())
    images = judge.generate(ONE_STEP, backend, 5)
    assert images.shape == (100, 1, 8, 8)
    assert judge.agreement(images) > 0.9
    latents = judge.invert(INVERSION, backend, 5)
    back = judge.reconstruct(latents, backend)
    assert latents.shape == back.shape == (7, 1, 8, 8)
    error = judge.reconstruction_error(INVERSION, backend, 5)
    # Before they are compared, images are rounded to uint8, where a few values may round either way.
    assert error == pytest.approx(mean_squared_error(back, judge.originals).mean(), rel=1e-2)
    assert error < 0.02


@pytest.mark.parametrize(
    ("numbers", "asked"), [({"samples": 1258}, 1258), ({"samples": 3}, 3), ({"reconstructed": 361}, 361)]
)
def test_numbers_of_images_that_are_not_there_are_refused(
    classifier: Classifier, numbers: dict[str, int], asked: int
):
    with pytest.raises(ImageError, match=rf"cannot take {asked} of its \d+ images"):
        Judge(classifier, load_digits("train"), load_digits("test"), extractor=None, **numbers)


def test_data_without_labels_is_scored_and_refused_only_where_classes_are_needed():
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
    with pytest.raises(LabelError, match="features need an extractor"):
        Judge(None, train, test)


def test_labels_without_a_classifier_are_no_judge_of_classes():
    judge = Judge(None, load_digits("train"), load_digits("test"), Brightness())
    with pytest.raises(LabelError, match="no classifier was trained"):
        _ = judge.accuracy
