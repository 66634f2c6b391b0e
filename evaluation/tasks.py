"""What inversion opens, measured on held-out images and shown: the report's part on tasks.

The numbers come from task_measures.py and task_constrained.py, the pictures from task_galleries.py; here they become tables.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import MissingExtraError
from ..runtime.pipeline import BCM
from . import task_galleries as galleries
from .exhibits import Curves, Exhibit, Point, Table
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
    PURIFYING,
    QUERIES,
    STRENGTHS,
    Purified,
    Report,
    Restored,
    frechet,
    measure_purification,
    measure_reconstruction,
    measure_restoration,
    measure_variations,
    say,
)

ATTACKED = 100  # images at most: every one is attacked QUERIES times per budget, and its label guessed at several network calls per class
FACTOR = 2  # of enlargements
CURVED = 0.2  # the strength whose restorations are drawn over network calls


def task_exhibits(
    bcm: BCM,
    judge: Judge,
    images: np.ndarray,
    labels: np.ndarray | None,
    seed: int,
    report: Report | None = None,
) -> list[Exhibit]:
    """Tables, pictures and curves of every task that the model can do.

    images: float32 [N, C, H, W] in [-1, 1], held out; labels: int64 [N], or None for data without classes; seed: of the first image, the
    others have seed + 1, …. report is told what is being measured. Raises LabelError for a model with classes and no labels.
    """
    distance = f"Fréchet distances are to the {len(judge.images)} held-out images"
    around = (
        f"{distance}; the {len(images)} originals themselves lie at {max(frechet(judge, images), 0):.2f}."
    )
    if bcm.num_classes is not None:
        around += " The model is told every image's true label."
    shown: list[Exhibit] = []
    shown += _inpainting(bcm, judge, images, labels, seed, around, report)
    shown += _restoration(bcm, judge, images, labels, seed, around, report)
    shown += _purification(bcm, judge, images, labels, seed, report)
    say(report, "interpolation")
    shown += galleries.interpolation(bcm, images, labels, seed)
    say(report, "variations")
    shown += _variations(bcm, judge, images, labels, seed, around)
    if images.shape[2] % FACTOR == images.shape[3] % FACTOR == 0:
        say(report, "upscaling")
        shown += _upscaling(bcm, judge, images, labels, seed, around)
    if images.shape[1] == 3:
        say(report, "colourisation")
        shown += _colouring(bcm, judge, images, labels, seed, around)
    say(report, "reconstruction")
    return shown + _reconstruction(bcm, images, labels, seed)


def _inpainting(
    bcm: BCM,
    judge: Judge,
    images: np.ndarray,
    labels: np.ndarray | None,
    seed: int,
    around: str,
    report: Report | None,
) -> list[Exhibit]:
    found = measure_inpainting(bcm, judge, images, labels, seed, report=report)
    rows = [
        [f.hole, f.method, f.schedule.nfe, _r(f.error, 4), _r(f.frechet, 2), "yes" if f.exact else "no"]
        for f in found
    ]
    columns = ["hole", "method", "network calls", "MSE in the hole", "Fréchet distance", "known pixels exact"]
    note = f"MSE of pixels in [0, 1]. {around} {methods_note({f.method: f.schedule for f in found})}"
    return [Table("Inpainting", columns, rows, note), galleries.inpainting(bcm, images, labels, seed)]


def _restoration(
    bcm: BCM,
    judge: Judge,
    images: np.ndarray,
    labels: np.ndarray | None,
    seed: int,
    around: str,
    report: Report | None,
) -> list[Exhibit]:
    found = measure_restoration(bcm, judge, images, labels, seed, report=report)
    names = list(dict.fromkeys(f.degradation for f in found))
    rows = []
    for name in names:
        of = [f for f in found if f.degradation == name]
        for nfe in sorted({f.nfe for f in of}):
            rows.append([name, nfe or "–", *_by_strength([f for f in of if f.nfe == nfe])])
    columns = [
        "damage",
        "network calls",
        *(f"{what}, strength {s:g}" for what in ("PSNR", "SSIM", "Fréchet distance") for s in STRENGTHS),
    ]
    programs = {f.nfe: str(f.schedule) for f in found if f.strength == CURVED}
    spelt = "; ".join(f"{nfe}: {program}" for nfe, program in programs.items())
    note = f"Rows without calls: the damaged images. Calls at strength {CURVED:g}: {spelt}. {around}"
    lines = {
        name: [
            Point(f.nfe, _r(f.frechet, 3))
            for f in found
            if f.degradation == name and f.strength in (None, CURVED)
        ]
        for name in names
        if name.startswith("JPEG")
    }
    curves = Curves(
        "Restoration of JPEG: distance over network calls",
        "network calls",
        "Fréchet distance",
        lines,
        log_y=True,
        note=f"0 calls: the compressed images. Strength {CURVED:g}; the programs are those of the table.",
    )
    return [
        Table("Restoration", columns, rows, note),
        curves,
        galleries.restoration(bcm, images, labels, seed),
    ]


def _by_strength(found: Sequence[Restored]) -> list[float]:
    """PSNR, SSIM and distance at every strength; the degraded images have none, and the same everywhere."""
    at = [
        found[0] if found[0].strength is None else next(f for f in found if f.strength == s)
        for s in STRENGTHS
    ]
    return [*(_r(f.psnr, 2) for f in at), *(_r(f.ssim, 3) for f in at), *(_r(f.frechet, 2) for f in at)]


def _purification(
    bcm: BCM, judge: Judge, images: np.ndarray, labels: np.ndarray | None, seed: int, report: Report | None
) -> list[Exhibit]:
    title, reason = "Purification", "the data has no labels, so there is no classifier to attack"
    if labels is not None and judge.classifier is not None:
        few, of = images[:ATTACKED], labels[:ATTACKED]
        try:
            found = measure_purification(bcm, judge, few, of, seed, report=report)
            return [
                _purification_table(title, found, len(few)),
                galleries.purification(bcm, judge.classifier, few, of, seed),
            ]
        except MissingExtraError as error:
            reason = str(error)
    return [Table(title, [], [], f"Not measured: {reason}.")]


def _purification_table(title: str, found: Sequence[Purified], n: int) -> Table:
    conditional = found[0].guessed is not None
    columns = ["L∞ budget", "attacked", *(["label guessed by the model"] if conditional else [])]
    columns += [f"purified, strength {s:g}" for s in PURIFYING]
    columns += [f"true label given, {s:g}" for s in PURIFYING] if conditional else []
    rows = [
        [
            f.budget,
            _r(f.attacked, 3),
            *([_r(f.guessed, 3)] if f.guessed is not None else []),
            *(_r(f.purified[s], 3) for s in PURIFYING),
            *(_r(f.purified_true_labels[s], 3) for s in PURIFYING if f.purified_true_labels is not None),
        ]
        for f in found
    ]
    note = (
        f"Share of {n} images that the classifier gets right after a Square attack of {QUERIES} queries on it; budgets in units of "
        "[-1, 1]; 0: clean images, sent through the purification all the same. The attacker knows nothing of the purification."
    )
    if conditional:
        note += (
            " Purified under labels that the model guesses from the attacked images; a wrong one can pull an image to another class. The "
            "columns with the true label say what a right guess would give, and are no defence, for the label is the answer."
        )
    return Table(title, columns, rows, note)


def _variations(
    bcm: BCM, judge: Judge, images: np.ndarray, labels: np.ndarray | None, seed: int, around: str
) -> list[Exhibit]:
    found = measure_variations(bcm, judge, images, labels, seed)
    rows = [
        [f.strength, _r(f.error, 4), _r(f.frechet, 2), "–" if f.agreement is None else _r(f.agreement, 3)]
        for f in found
    ]
    columns = ["strength", "MSE to the original", "Fréchet distance", "classifier sees the original's class"]
    note = f"One variation of each image; strength 0 is the reconstruction. {around}"
    return [Table("Variations", columns, rows, note), galleries.variations(bcm, images, labels, seed)]


def _upscaling(
    bcm: BCM, judge: Judge, images: np.ndarray, labels: np.ndarray | None, seed: int, around: str
) -> list[Exhibit]:
    found = measure_upscaling(bcm, judge, images, labels, seed, FACTOR)
    rows = [
        [
            f.method,
            "–" if f.schedule is None else f.schedule.nfe,
            _r(f.error, 4),
            _r(f.frechet, 2),
            f"{f.small_error:.1e}",
        ]
        for f in found
    ]
    columns = [
        "method",
        "network calls",
        "MSE to the original",
        "Fréchet distance",
        "largest error in low resolution",
    ]
    spelt = methods_note({f.method: f.schedule for f in found if f.schedule})
    note = f"From means over {FACTOR}×{FACTOR} pixels; the last column in units of [-1, 1], where float32 rounds at 6e-8. {around} {spelt}"
    return [
        Table(f"Upscaling by {FACTOR}", columns, rows, note),
        galleries.upscaling(bcm, images, labels, seed, FACTOR),
    ]


def _colouring(
    bcm: BCM, judge: Judge, images: np.ndarray, labels: np.ndarray | None, seed: int, around: str
) -> list[Exhibit]:
    found = measure_colouring(bcm, judge, images, labels, seed)
    rows = [
        [
            f.method,
            "–" if f.schedule is None else f.schedule.nfe,
            _r(f.error, 4),
            "–" if np.isnan(f.hues) else _r(f.hues, 3),
            _r(f.frechet, 2),
            f"{f.grey_error:.1e}",
        ]
        for f in found
    ]
    columns = [
        "method",
        "network calls",
        "MSE to the original",
        "right hues",
        "Fréchet distance",
        "largest error of brightness",
    ]
    note = f"Right hues: of pixels with max - min of R, G, B above {CHROMA:g}, those within {HUE * 360:g}° of the original's. {around}"
    note += f" {methods_note({f.method: f.schedule for f in found if f.schedule})}"
    return [Table("Colourisation", columns, rows, note), galleries.colouring(bcm, images, labels, seed)]


def _reconstruction(bcm: BCM, images: np.ndarray, labels: np.ndarray | None, seed: int) -> list[Exhibit]:
    found = measure_reconstruction(bcm, images, labels, seed)
    rows = [
        [f.name, str(f.schedule), f.schedule.nfe, _r(f.error, 5), _r(float(f.by_pixel.max()), 5)]
        for f in found
    ]
    columns = ["inversion", "levels", "network calls", "MSE", "MSE of the worst pixel"]
    note = f"Mean over {len(images)} held-out images, one step back."
    return [Table("Where reconstruction errs", columns, rows, note), *galleries.errors(found)]


def _r(value: float, digits: int) -> float:
    return round(float(value), digits)
