"""Pictures of a BCM beside its baselines: samples at equal noise, and reconstructions with their errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ..model.samplers import Solver
from ..runtime.classes import label_texts
from ..runtime.pictures.writing import heat
from ..runtime.pixels import to_uint8
from .comparison import Sampled
from .exhibits import Gallery
from .rivals import YARDSTICK, Rivals, calls, title

COLUMNS = 10
MOST_STEPS_SHOWN = 5  # network calls of a baseline in the picture of samples, beside the yardstick
# The baselines in the picture of reconstructions.
SHOWN_BACK = (Solver("heun", 2), Solver("heun", 3), Solver("ddim", 2), Solver("ddim", 10))


def sample_gallery(rivals: Rivals) -> Gallery:
    """Return samples: a row per schedule and per baseline, a column per starting noise and label."""
    bcm, seeds = rivals.bcm, range(rivals.seed, rivals.seed + COLUMNS)
    labels = None if bcm.num_classes is None else np.arange(COLUMNS) % bcm.num_classes
    rows = {}
    for name, schedule in rivals.generations.items():
        images = bcm.generate(COLUMNS, schedule=schedule, seed=seeds, labels=labels)
        rows[_row(name, schedule.nfe)] = images
    for solver, denoiser in rivals.baselines:
        if solver.nfe <= MOST_STEPS_SHOWN or solver == YARDSTICK:
            rows[f"{title(solver)}, {calls(solver.nfe)}"] = solver.generate(denoiser, seeds, labels)
    note = f"Seeds {seeds[0]} to {seeds[-1]}, not selected. Each column has one starting noise."
    headings = [f"seed {seed}" for seed in seeds] if labels is None else label_texts(labels, bcm.classes)
    return _gallery("Samples at equal noise", rows, note, headings)


def best_samples(gallery: Gallery, samples: Sequence[Sampled]) -> Gallery:
    """Return the row of `sample_gallery` whose schedule has the lowest Fréchet ratio of the BCM."""
    best = min((sample for sample in samples if sample.family == "BCM"), key=lambda s: s.mean("ratio"))
    name = _row(best.name, best.nfe)
    start = gallery.rows.index(name) * gallery.columns
    label = f"Samples, {name} (the schedule with the lowest Fréchet ratio; not selected)"
    images = gallery.images[start : start + gallery.columns]
    return Gallery("Samples", images, gallery.columns, [label], headings=gallery.headings)


def reconstruction_gallery(rivals: Rivals) -> Gallery:
    """Return held-out images, their reconstructions, and heat maps of the differences, all on one scale."""
    originals = rivals.judge.originals[:COLUMNS]
    reconstructions = _reconstructions(rivals, originals)
    differences = {
        name: np.abs(to_uint8(images) / 255 - to_uint8(originals) / 255).max(axis=1)
        for name, images in reconstructions.items()
    }
    largest = [float(difference.max()) for name, difference in differences.items() if name.startswith("BCM")]
    scale = max([*largest, 1 / 255])
    rows = {"held-out images": originals}
    for name, images in reconstructions.items():
        rows[name] = images
        rows[f"difference, {name}"] = heat(differences[name][:, None] / scale)
    note = (
        f"The first {len(originals)} held-out images. Differences: black for 0, white for {scale:.2f} of the"
        " range of a pixel or more."
    )
    labels = rivals.judge.original_labels
    headings = label_texts(None if labels is None else labels[: len(originals)], rivals.bcm.classes)
    return _gallery("Reconstructions and their differences", rows, note, headings)


def _row(name: str, nfe: int) -> str:
    """The label of the samples of a schedule of the BCM."""
    return f"BCM {name}, {calls(nfe)}"


def _reconstructions(rivals: Rivals, originals: np.ndarray) -> dict[str, np.ndarray]:
    """Name → images, of the named inversions of the bundle and of SHOWN_BACK."""
    bcm, labels = rivals.bcm, None
    if bcm.num_classes is not None and rivals.judge.original_labels is not None:
        labels = rivals.judge.original_labels[: len(originals)]
    rows = {}
    for name, inversion in rivals.inversions.items():
        if name in bcm.schedules:
            images = bcm.reconstruct(originals, inversion=inversion, seed=rivals.seed, labels=labels)
            rows[f"BCM {name}, one-step, {calls(inversion.nfe + 1)}"] = images
    for solver, denoiser in rivals.baselines:
        if solver in SHOWN_BACK:
            states = solver.invert(denoiser, originals, labels)
            name = f"{title(solver)}, {calls(solver.nfe + solver.inversion_nfe)}"
            rows[name] = solver.regenerate(denoiser, states, labels)
    return rows


def _gallery(title: str, rows: Mapping[str, np.ndarray], note: str, headings: Sequence[str]) -> Gallery:
    """A gallery in colour if any row is in colour."""
    channels = max(images.shape[1] for images in rows.values())
    images = [np.repeat(images, channels // images.shape[1], axis=1) for images in rows.values()]
    return Gallery(title, np.concatenate(images).clip(-1, 1), images[0].shape[0], list(rows), note, headings)
