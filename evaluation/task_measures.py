"""How well a model does what inversion opens, in numbers: restore, purify, vary, reconstruct; and what the measures share.

Common arguments, here and in task_constrained.py. bcm: the model; judge: of its data; images: float32 [N, C, H, W] in [-1, 1], held out;
labels: int64 [N], or None for data without classes; seed: of the first image, the others have seed + 1, …. Fréchet distances are between
the results and all held-out images of the judge, in its features: compare them at equal N only. Errors are mean squared differences in
[0, 1].
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
from .degradations import DEGRADATIONS, Degradation
from .distances import frechet_distance
from .fidelity import psnr, ssim
from .quality import Judge

Report = Callable[[str], None]  # is given a line of progress
STRENGTHS = (0.1, 0.2, 0.4)  # of restorations
_TWO = f"+{{0}} {{0}}>{LEVEL:g}>{SIGMA_MIN}"
PROGRAMS = (  # of 1, 2 (the default), 3 and 4 network calls, at strength {0}
    f"+{{0}} {{0}}>{SIGMA_MIN}",
    _TWO,
    f"+{{0}} {{0}}>{SIGMA_MAX:g}>{LEVEL:g}>{SIGMA_MIN}",
    f"{_TWO} +0.1 0.1>0.8>{SIGMA_MIN}",
)
PSNR_OF_EQUALS = 60.0  # dB, which keeps means finite
BUDGETS = (0.0, 0.1, 0.2, 0.3, 0.5)  # of attacks
PURIFYING = (0.2, 0.3, 0.5)  # strengths
QUERIES = 200  # of an attack, per image
VARYING = (0.0, 0.15, 0.3, 0.6, 1.0)  # strengths of variations


def asked(bcm: BCM, labels: np.ndarray | None) -> np.ndarray | None:
    """The labels that this model is to be given."""
    return None if bcm.num_classes is None else labels


def frechet(judge: Judge, images: np.ndarray) -> float:
    return frechet_distance(judge.extractor.features(images), judge.features)


def say(report: Report | None, line: str) -> None:
    if report:
        report(line)


# ---- restoration


@dataclass(frozen=True)
class Restored:
    """What is left of a degradation; schedule: None, strength: None for the degraded images themselves."""

    degradation: str
    strength: float | None
    schedule: Schedule | None
    psnr: float
    ssim: float
    frechet: float

    @property
    def nfe(self) -> int:
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
    """Every degradation: the degraded images, then every program at every strength, which stands for {0}."""
    found = []
    for degradation in degradations:
        say(report, f"restoration: {degradation.name}")
        degraded = degradation.apply(images, range(seed, seed + len(images)))
        found.append(Restored(degradation.name, None, None, *_likeness(judge, images, degraded)))
        for program in programs:
            for strength in strengths:
                schedule = parse_schedule(program.format(strength))
                restored = bcm.restore(degraded, schedule=schedule, seed=seed, labels=asked(bcm, labels))
                found.append(
                    Restored(degradation.name, strength, schedule, *_likeness(judge, images, restored))
                )
    return found


def _likeness(judge: Judge, images: np.ndarray, others: np.ndarray) -> tuple[float, float, float]:
    """Mean PSNR (of equal images: PSNR_OF_EQUALS), mean SSIM, Fréchet distance."""
    finite = np.minimum(psnr(images, others), PSNR_OF_EQUALS)
    return float(finite.mean()), float(ssim(images, others).mean()), frechet(judge, others)


# ---- purification


@dataclass(frozen=True)
class Purified:
    """Shares of right answers: of the classifier on attacked images, of the labels the model guesses for them, and of the classifier
    after purification, by strength: under the guessed labels, and under the true ones. A model without classes guesses none."""

    budget: float
    attacked: float
    guessed: float | None
    purified: Mapping[float, float]
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
    """The Square attack on the judge's classifier at every budget, undone by restoration. Raises MissingExtraError without the toolbox,
    LabelError without a classifier."""
    classifier, found = judge.classifier, []
    if classifier is None:
        raise LabelError(
            "an attack needs a classifier to mislead, and this judge has none: its data has no labels"
        )
    for budget in budgets:
        say(report, f"purification: budget {budget:g}")
        attacked = square_attack(classifier, images, labels, budget, queries, seed)
        guessed = None if bcm.num_classes is None else bcm.guess_labels(attacked, seed=seed)

        def right(strength: float, given: np.ndarray | None, x: np.ndarray = attacked) -> float:
            return _right(
                classifier.predict(bcm.restore(x, strength=strength, seed=seed, labels=given)), labels
            )

        found.append(
            Purified(
                budget,
                _right(classifier.predict(attacked), labels),
                None if guessed is None else _right(guessed, labels),
                {strength: right(strength, guessed) for strength in strengths},
                None if guessed is None else {strength: right(strength, labels) for strength in strengths},
            )
        )
    return found


def _right(answers: np.ndarray, labels: np.ndarray) -> float:
    return float((answers == labels).mean())


# ---- variations


@dataclass(frozen=True)
class Varied:
    """error: of the variations against their originals; agreement: share in which the judge's classifier sees the original's label."""

    strength: float
    error: float
    frechet: float
    agreement: float | None


def measure_variations(
    bcm: BCM,
    judge: Judge,
    images: np.ndarray,
    labels: np.ndarray | None,
    seed: int,
    strengths: Sequence[float] = VARYING,
) -> list[Varied]:
    """One variation of every image at every strength."""
    found = []
    for strength in strengths:
        varied = bcm.variations(images, 1, strength=strength, seed=seed, labels=asked(bcm, labels))[:, 0]
        agreement = (
            None
            if labels is None or judge.classifier is None
            else _right(judge.classifier.predict(varied), labels)
        )
        found.append(
            Varied(
                strength, float(mean_squared_error(varied, images).mean()), frechet(judge, varied), agreement
            )
        )
    return found


# ---- reconstruction


@dataclass(frozen=True)
class Reconstruction:
    """error: mean over images and pixels; by_pixel: float64 [H, W], mean over images and channels."""

    name: str
    schedule: Schedule
    error: float
    by_pixel: np.ndarray


def measure_reconstruction(
    bcm: BCM, images: np.ndarray, labels: np.ndarray | None, seed: int
) -> list[Reconstruction]:
    """Every inversion among the model's schedules, and one step back; fewest network calls first."""
    programs = {name: bcm.schedule(name) for name in bcm.schedules}
    found = []
    for name, schedule in sorted(programs.items(), key=lambda item: item[1].nfe):
        if schedule.from_image and schedule.end == SIGMA_MAX:
            back = bcm.reconstruct(images, inversion=schedule, seed=seed, labels=asked(bcm, labels))
            error = np.square((back.astype(np.float64) - images) / 2).mean(axis=(0, 1))
            found.append(Reconstruction(name, schedule, float(error.mean()), error))
    return found
