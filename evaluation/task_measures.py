"""Measures of how well a model restores, purifies, varies and reconstructs images, and helpers of all tasks.

Common arguments, here and in task_constrained.py:

    bcm      the model
    judge    the judge of its data
    images   float32 [N, C, H, W] in [-1, 1], held out
    labels   int64 [N], or None for data without classes
    seed     of the first image; the following images have seed + 1, …
    report   gets one line of progress; None for no progress

Fréchet distances are between the results and all held-out images of the judge, in its features. Compare them
only at equal N. Errors are mean squared differences in [0, 1].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import LabelError
from ..runtime.pipeline import BCM
from ..runtime.pixels import mean_squared_error
from ..runtime.schedule import SIGMA_MAX, SIGMA_MIN, Schedule, parse_schedule
from ..runtime.tasks.restoration import LEVEL
from .attack import square_attack
from .classifier import Classifier
from .degradations import DEGRADATIONS, Degradation
from .distances import frechet_distance
from .fidelity import psnr, ssim
from .quality import Judge

Report = Callable[[str], None]  # gets one line of progress

STRENGTHS = (0.1, 0.2, 0.4)  # strengths of restorations
# Restorations with 1, 2 (the default), 3 and 4 network calls, at strength {0}.
_TWO_CALLS = f"+{{0}} {{0}}>{LEVEL:g}>{SIGMA_MIN}"
PROGRAMS = (
    f"+{{0}} {{0}}>{SIGMA_MIN}",
    _TWO_CALLS,
    f"+{{0}} {{0}}>{SIGMA_MAX:g}>{LEVEL:g}>{SIGMA_MIN}",
    f"{_TWO_CALLS} +0.1 0.1>0.8>{SIGMA_MIN}",
)
PSNR_OF_EQUALS = 60.0  # dB, in place of infinity, so that means are finite
BUDGETS = (0.0, 0.1, 0.2, 0.3, 0.5)  # budgets of attacks
PURIFYING = (0.2, 0.3, 0.5)  # strengths of purifications
QUERIES = 200  # queries of an attack, per image
VARYING = (0.0, 0.15, 0.3, 0.6, 1.0)  # strengths of variations


def model_labels(bcm: BCM, labels: np.ndarray | None) -> np.ndarray | None:
    """Return the labels for the model, or None if the model has no classes."""
    return None if bcm.num_classes is None else labels


def frechet(judge: Judge, images: np.ndarray) -> float:
    """Return the Fréchet distance between images and the held-out images."""
    return frechet_distance(judge.extractor.features(images), judge.features)


def say(report: Report | None, line: str) -> None:
    """Report a line of progress, if there is something to report to."""
    if report:
        report(line)


# ---- restoration


@dataclass(frozen=True)
class Restored:
    """The figures of degraded images, before or after a restoration."""

    degradation: str
    # None for the degraded images themselves
    strength: float | None
    # None for the degraded images themselves
    schedule: Schedule | None
    # mean over the images, in dB
    psnr: float
    # mean over the images
    ssim: float
    frechet: float

    @property
    def nfe(self) -> int:
        """The number of network calls."""
        return 0 if self.schedule is None else self.schedule.nfe


def measure_restoration(
    bcm: BCM,
    judge: Judge,
    images: np.ndarray,
    labels: np.ndarray | None,
    seed: int,
    degradations: Sequence[Degradation] = DEGRADATIONS,
    programs: Sequence[str] = PROGRAMS,
    strengths: Sequence[float] = STRENGTHS,
    report: Report | None = None,
) -> list[Restored]:
    """Measure each degradation: the degraded images, then each program at each strength.

    The strength replaces {0} in the program.
    """
    labels = model_labels(bcm, labels)
    rows = []
    for degradation in degradations:
        say(report, f"restoration: {degradation.name}")
        degraded = degradation.apply(images, range(seed, seed + len(images)))
        rows.append(Restored(degradation.name, None, None, *_likeness(judge, images, degraded)))
        for program in programs:
            for strength in strengths:
                schedule = parse_schedule(program.format(strength))
                restored = bcm.restore(degraded, schedule=schedule, seed=seed, labels=labels)
                likeness = _likeness(judge, images, restored)
                rows.append(Restored(degradation.name, strength, schedule, *likeness))
    return rows


def _likeness(judge: Judge, originals: np.ndarray, images: np.ndarray) -> tuple[float, float, float]:
    """Return the mean PSNR (PSNR_OF_EQUALS for equal images), the mean SSIM and the Fréchet distance."""
    finite = np.minimum(psnr(originals, images), PSNR_OF_EQUALS)
    return float(finite.mean()), float(ssim(originals, images).mean()), frechet(judge, images)


# ---- purification


@dataclass(frozen=True)
class Purified:
    """The accuracy of a classifier after an attack."""

    budget: float
    # accuracy of the classifier on the attacked images
    attacked: float
    # accuracy of the labels that the model guesses from attacked images; None for a model without classes
    guessed: float | None
    # strength → accuracy after purification with the guessed labels
    purified: Mapping[float, float]
    # strength → accuracy after purification with the true labels; None for a model without classes
    purified_true_labels: Mapping[float, float] | None


def measure_purification(
    bcm: BCM,
    judge: Judge,
    images: np.ndarray,
    labels: np.ndarray,
    seed: int,
    budgets: Sequence[float] = BUDGETS,
    strengths: Sequence[float] = PURIFYING,
    queries: int = QUERIES,
    report: Report | None = None,
) -> list[Purified]:
    """Run the Square attack on the judge's classifier at each budget, and purify the images by restoration.

    Raises MissingExtraError without the adversarial-robustness-toolbox, LabelError without a classifier.
    """
    if judge.classifier is None:
        raise LabelError("an attack needs a classifier; this judge has none because its data has no labels")
    rows = []
    for budget in budgets:
        say(report, f"purification: budget {budget:g}")
        attacked = square_attack(judge.classifier, images, labels, budget, queries, seed)
        rows.append(_purified(bcm, judge.classifier, attacked, labels, seed, budget, strengths))
    return rows


def _purified(
    bcm: BCM,
    classifier: Classifier,
    attacked: np.ndarray,
    labels: np.ndarray,
    seed: int,
    budget: float,
    strengths: Sequence[float],
) -> Purified:
    def purified(strength: float, model_labels: np.ndarray | None) -> float:
        images = bcm.restore(attacked, strength=strength, seed=seed, labels=model_labels)
        return _right(classifier.predict(images), labels)

    before = _right(classifier.predict(attacked), labels)
    if bcm.num_classes is None:
        return Purified(budget, before, None, {s: purified(s, None) for s in strengths}, None)
    guessed = bcm.guess_labels(attacked, seed=seed)
    return Purified(
        budget,
        before,
        _right(guessed, labels),
        {strength: purified(strength, guessed) for strength in strengths},
        {strength: purified(strength, labels) for strength in strengths},
    )


def _right(answers: np.ndarray, labels: np.ndarray) -> float:
    return float((answers == labels).mean())


# ---- variations


@dataclass(frozen=True)
class Varied:
    """The figures of variations of one strength."""

    strength: float
    # figures of the variations against their originals
    error: float
    frechet: float
    # the share in which the judge's classifier sees the class of the original; None without labels
    agreement: float | None


def measure_variations(
    bcm: BCM,
    judge: Judge,
    images: np.ndarray,
    labels: np.ndarray | None,
    seed: int,
    strengths: Sequence[float] = VARYING,
) -> list[Varied]:
    """Measure one variation of each image at each strength."""
    rows = []
    for strength in strengths:
        varied = bcm.variations(images, 1, strength=strength, seed=seed, labels=model_labels(bcm, labels))
        varied = varied[:, 0]
        agreement = None
        if labels is not None and judge.classifier is not None:
            agreement = _right(judge.classifier.predict(varied), labels)
        error = float(mean_squared_error(varied, images).mean())
        rows.append(Varied(strength, error, frechet(judge, varied), agreement))
    return rows


# ---- reconstruction


@dataclass(frozen=True)
class Reconstruction:
    """The figures of images after an inversion and one step back."""

    name: str
    schedule: Schedule
    # mean over images and pixels
    error: float
    # float64 [H, W], mean over images and channels
    by_pixel: np.ndarray


def measure_reconstruction(
    bcm: BCM, images: np.ndarray, labels: np.ndarray | None, seed: int
) -> list[Reconstruction]:
    """Measure each inversion of the model, in the order of network calls."""
    schedules = {name: bcm.schedule(name) for name in bcm.schedules}
    rows = []
    for name, schedule in sorted(schedules.items(), key=lambda item: item[1].nfe):
        if schedule.inverts:
            back = bcm.reconstruct(images, inversion=schedule, seed=seed, labels=model_labels(bcm, labels))
            error = np.square((back.astype(np.float64) - images) / 2).mean(axis=(0, 1))
            rows.append(Reconstruction(name, schedule, float(error.mean()), error))
    return rows
