"""The part of the report about tasks: what a model does with held-out images, in tables, pictures and curves.

The numbers come from task_measures.py and task_constrained.py, the pictures from task_galleries.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..errors import MissingExtraError
from ..runtime.pipeline import BCM
from . import task_galleries as galleries
from .exhibits import NOTHING, Exhibit, Table
from .quality import Judge
from .task_constrained import (
    CHROMA,
    HUE,
    measure_colouring,
    measure_inpainting,
    measure_upscaling,
    methods_note,
)
from .task_measures import (
    Report,
    frechet,
    measure_purification,
    measure_reconstruction,
    measure_restoration,
    measure_variations,
    say,
)
from .task_restyling import held_out_pairs, measure_restyling, measured_pairs
from .task_tables import (
    purification_table,
    restoration_curves,
    restoration_table,
    restyling_table,
    rounded,
)

# The most images that are attacked: each costs QUERIES queries per budget, and several network calls per
# class to guess its label.
ATTACKED = 100
FACTOR = 2  # factor of upscaling
LEAST_NAMES = 4  # names of pairs; a quarter of them chooses what restyling is compared with


@dataclass(frozen=True)
class Run:
    """The model and the images of a report; see task_measures.py."""

    bcm: BCM
    judge: Judge
    images: np.ndarray
    labels: np.ndarray | None
    seed: int
    report: Report | None

    @property
    def arguments(self) -> tuple[BCM, Judge, np.ndarray, np.ndarray | None, int]:
        """The common arguments of the measures."""
        return self.bcm, self.judge, self.images, self.labels, self.seed

    @property
    def shown(self) -> tuple[BCM, np.ndarray, np.ndarray | None, int]:
        """The common arguments of the galleries."""
        return self.bcm, self.images, self.labels, self.seed

    @cached_property
    def note(self) -> str:
        """The fields that the figures of all tasks have, for tables."""
        own = max(frechet(self.judge, self.images), 0)
        note = (
            f"Fréchet distances are to the {len(self.judge.images)} held-out images; the distance of the"
            f" {len(self.images)} originals themselves is {own:.2f}."
        )
        if self.bcm.num_classes is not None:
            note += " The model gets the true label of each image."
        return note

    def say(self, line: str) -> None:
        """Report a line of progress."""
        say(self.report, line)


def task_exhibits(
    bcm: BCM,
    judge: Judge,
    images: np.ndarray,
    labels: np.ndarray | None,
    seed: int,
    report: Report | None = None,
) -> list[Exhibit]:
    """Measure all tasks that the model can do.

    images: float32 [N, C, H, W] in [-1, 1], held out. labels: int64 [N], or None for data without classes.
    seed: of the first image; the following images have seed + 1, …. report: gets a line of progress for each
    measurement. Raises LabelError for a model with classes and no labels.
    """
    run = Run(bcm, judge, images, labels, seed, report)
    exhibits = [*_inpainting(run), *_restoration(run), *_purification(run)]
    run.say("interpolation")
    exhibits += galleries.interpolation(bcm, images, labels, seed)
    run.say("variations")
    exhibits += _variations(run)
    if judge.names is not None and (bcm.num_classes or 0) > 1:
        exhibits += _restyling(run)
    if images.shape[2] % FACTOR == images.shape[3] % FACTOR == 0:
        run.say("upscaling")
        exhibits += _upscaling(run)
    if images.shape[1] == 3:
        run.say("colourisation")
        exhibits += _colouring(run)
    run.say("reconstruction")
    return exhibits + _reconstruction(run)


def _inpainting(run: Run) -> list[Exhibit]:
    fillings = measure_inpainting(*run.arguments, report=run.report)
    columns = ["hole", "method", "network calls", "MSE in the hole", "Fréchet distance", "known pixels exact"]
    rows = [
        [
            filling.hole,
            filling.method,
            filling.schedule.nfe,
            rounded(filling.error, 4),
            rounded(filling.frechet, 2),
            "yes" if filling.exact else "no",
        ]
        for filling in fillings
    ]
    methods = methods_note({filling.method: filling.schedule for filling in fillings})
    note = f"MSE of pixels in [0, 1]. {run.note} {methods}"
    gallery = galleries.inpainting(*run.shown)
    return [Table("Inpainting", columns, rows, note), gallery]


def _restoration(run: Run) -> list[Exhibit]:
    restored = measure_restoration(*run.arguments, report=run.report)
    gallery = galleries.restoration(*run.shown)
    return [restoration_table(restored, run.note), restoration_curves(restored), gallery]


def _purification(run: Run) -> list[Exhibit]:
    title, classifier = "Purification", run.judge.classifier
    reason = "the data has no labels, so there is no classifier to attack"
    if run.labels is not None and classifier is not None:
        images, labels = run.images[:ATTACKED], run.labels[:ATTACKED]
        try:
            purified = measure_purification(run.bcm, run.judge, images, labels, run.seed, report=run.report)
            table = purification_table(title, purified, len(images))
            return [table, galleries.purification(run.bcm, classifier, images, labels, run.seed)]
        except MissingExtraError as error:
            reason = str(error)
    return [Table(title, [], [], f"Not measured: {reason}.")]


def _variations(run: Run) -> list[Exhibit]:
    varied = measure_variations(*run.arguments)
    columns = ["strength", "MSE to the original", "Fréchet distance", "classifier sees the original's class"]
    rows = [
        [
            each.strength,
            rounded(each.error, 4),
            rounded(each.frechet, 2),
            NOTHING if each.agreement is None else rounded(each.agreement, 3),
        ]
        for each in varied
    ]
    note = f"One variation of each image; strength 0 is the reconstruction. {run.note}"
    gallery = galleries.variations(*run.shown)
    return [Table("Variations", columns, rows, note), gallery]


def _restyling(run: Run) -> list[Exhibit]:
    pairs = held_out_pairs(run.judge)
    if len(set(pairs.names)) < LEAST_NAMES:
        note = f"Not measured: fewer than {LEAST_NAMES} held-out things have images in two classes."
        return [Table("Restyling", [], [], note)]
    restyled = measure_restyling(run.bcm, run.judge, pairs, run.seed, report=run.report)
    measured = measured_pairs(pairs)[1]
    return [restyling_table(restyled, measured), galleries.restyling(run.bcm, measured, run.seed)]


def _upscaling(run: Run) -> list[Exhibit]:
    enlarged = measure_upscaling(*run.arguments, FACTOR)
    figures = "MSE to the original", "Fréchet distance", "largest error in low resolution"
    rows = [
        [
            each.method,
            NOTHING if each.schedule is None else each.schedule.nfe,
            rounded(each.error, 4),
            rounded(each.frechet, 2),
            f"{each.small_error:.1e}",
        ]
        for each in enlarged
    ]
    methods = methods_note({each.method: each.schedule for each in enlarged if each.schedule})
    note = (
        f"The small images are means over {FACTOR}×{FACTOR} pixels. The last column is in units of [-1, 1];"
        f" float32 rounds at 6e-8 there. {run.note} {methods}"
    )
    table = Table(f"Upscaling by {FACTOR}", ["method", "network calls", *figures], rows, note)
    return [table, galleries.upscaling(*run.shown, FACTOR)]


def _colouring(run: Run) -> list[Exhibit]:
    coloured = measure_colouring(*run.arguments)
    figures = "MSE to the original", "right hues", "Fréchet distance", "largest error of brightness"
    rows = [
        [
            each.method,
            NOTHING if each.schedule is None else each.schedule.nfe,
            rounded(each.error, 4),
            NOTHING if np.isnan(each.hues) else rounded(each.hues, 3),
            rounded(each.frechet, 2),
            f"{each.grey_error:.1e}",
        ]
        for each in coloured
    ]
    methods = methods_note({each.method: each.schedule for each in coloured if each.schedule})
    note = (
        f"Right hues: the share of pixels with max - min of R, G, B above {CHROMA:g} whose hue is within"
        f" {HUE * 360:g}° of the original's. {run.note} {methods}"
    )
    table = Table("Colourisation", ["method", "network calls", *figures], rows, note)
    return [table, galleries.colouring(*run.shown)]


def _reconstruction(run: Run) -> list[Exhibit]:
    reconstructions = measure_reconstruction(*run.shown)
    columns = ["inversion", "levels", "network calls", "MSE", "MSE of the worst pixel"]
    rows = [
        [
            each.name,
            str(each.schedule),
            each.schedule.nfe,
            rounded(each.error, 5),
            rounded(float(each.by_pixel.max()), 5),
        ]
        for each in reconstructions
    ]
    note = f"Mean over {len(run.images)} held-out images, one step back."
    return [Table("Reconstruction errors", columns, rows, note), *galleries.errors(reconstructions)]
