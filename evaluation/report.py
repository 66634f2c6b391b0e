"""The report of an evaluation: measurements as claims, curves and tables. page.py writes them as HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from ..runtime.schedule import ONE_STEP_BACK
from .claims import Claim, generation_claim, inversion_claim, rising_claim
from .comparison import Inverted, Latency, Sampled
from .exhibits import NOTHING, Curves, Exhibit, Gallery, Point, Table
from .plots import LEVEL
from .quality import Scores

GENERATION_NOTE = (
    "Fréchet ratio: the distance of the samples to the held-out images, divided by the distance of as many"
    " training images. Real images have a ratio of 1; lower is better. Mean ± its standard error over the"
    " sets of seeds, if there is more than one."
)
COMPARABLE_NOTE = (
    "All figures depend on the number of images: compare them with the first row, not with other pages."
)
KID_NOTE = "KID may be negative, more often if both sets have the same share of each class."
INVERSION_NOTE = (
    "MSE: mean squared difference in [0, 1] of pixels rounded to uint8 ± its standard error over the images."
    " PSNR: the median, in dB. SSIM: the mean. Network calls are those of inversion and generation together."
    " Latents are in units of σ_max; white noise would have mean 0 and standard deviation 1. Heun and DDIM"
    " add no noise; the BCM adds a little before it inverts."
)
LATENCY_NOTE = (
    "Median seconds per image over several runs, with the first and third quartile. The time to draw the"
    " noise is included."
)


def claims(samples: Sequence[Sampled], inversions: Sequence[Inverted], caveat: str = "") -> list[Claim]:
    """Judge the claims of the paper by the measurements. caveat: of the comparisons with the baseline."""
    generation, inversion = _ratios(samples), _errors(inversions)
    ours = [point for name, line in inversion.items() if name.startswith("BCM") for point in line]
    return [
        generation_claim(generation["BCM"], _baselines(generation), caveat),
        inversion_claim(ours, _baselines(inversion), caveat),
        rising_claim(generation["BCM"], "samples (Fréchet ratio)", ".2f"),
        rising_claim(ours, "reconstructions (MSE)", "#.2g"),
    ]


def generation_exhibits(samples: Sequence[Sampled], real: Scores) -> tuple[Curves, Table]:
    """Return the curves and the table of samples.

    real: the scores of as many training images as were generated.
    """
    lines = _ratios(samples)
    ends = [point.x for line in lines.values() for point in line]
    level = {LEVEL: [Point(min(ends), 1.0), Point(max(ends), 1.0)]}
    curves = Curves(
        "Fréchet ratio over network calls",
        "network calls (NFE)",
        "Fréchet ratio",
        {**lines, **level},
        log_x=True,
        log_y=True,
        note=GENERATION_NOTE,
    )
    scores = "Fréchet distance", "ratio", "KID ×1000", "precision", "recall"
    columns = ("sampler", "levels", "NFE", *scores, "label agreement")
    rows: list[Sequence[object]] = [("training images", NOTHING, NOTHING, *_scores(real, None), NOTHING)]
    for sample in samples:
        mean = Scores(*(sample.mean(name) for name in ("frechet", "ratio", "kid", "precision", "recall")))
        agreement = NOTHING if sample.agreement is None else f"{sample.agreement:.1%}"
        name = f"BCM {sample.name}" if sample.family == "BCM" else sample.name
        shown = _scores(mean, sample.spread)
        rows.append((name, sample.program, sample.nfe, *shown, agreement))
    note = f"{COMPARABLE_NOTE} {KID_NOTE}"
    return curves, Table("Generation", columns, rows, note)


def inversion_exhibits(inversions: Sequence[Inverted]) -> tuple[Curves, Table]:
    """Return the curves and the table of inversions."""
    curves = Curves(
        "Reconstruction error over network calls",
        "network calls of inversion and generation",
        "MSE",
        _errors(inversions),
        log_x=True,
        log_y=True,
        note=INVERSION_NOTE,
    )
    columns = ("sampler", "levels", "NFE", "MSE", "PSNR dB", "SSIM", "latent mean", "latent std")
    rows = []
    for inversion in inversions:
        name = f"BCM {inversion.name}" if inversion.line.startswith("BCM") else inversion.name
        mse = f"{inversion.mse:#.3g} ± {inversion.error:#.2g}"
        likeness = f"{inversion.psnr:.1f}", f"{inversion.ssim:.3f}"
        latents = f"{inversion.latent_mean:.3f}", f"{inversion.latent_std:.3f}"
        rows.append((name, inversion.program, inversion.nfe, mse, *likeness, *latents))
    return curves, Table("Inversion and reconstruction", columns, rows)


def latency_exhibit(
    times: Sequence[Latency],
    samples: Sequence[Sampled],
    inversions: Sequence[Inverted],
    nfe: Mapping[str, int],
) -> Table:
    """Return the table of latencies beside the quality. nfe: schedule → network calls."""
    batches = sorted({time.batch for time in times})
    seconds = {
        (time.name, time.batch): f"{time.seconds:#.2g} ({time.low:#.2g} – {time.high:#.2g})" for time in times
    }
    ratios = {sample.name: f"{sample.mean('ratio'):.2f}" for sample in samples if sample.family == "BCM"}
    errors = {
        inversion.name.removesuffix(ONE_STEP_BACK): f"{inversion.mse:#.2g}"
        for inversion in inversions
        if inversion.name.endswith(ONE_STEP_BACK)
    }
    quality = "Fréchet ratio", "one-step reconstruction MSE"
    columns = ("schedule", "NFE", *quality, *(f"s/image, batch {batch}" for batch in batches))
    rows = []
    for name, calls in nfe.items():
        own_seconds = (seconds[name, batch] for batch in batches)
        rows.append((name, calls, ratios.get(name, NOTHING), errors.get(name, NOTHING), *own_seconds))
    return Table("Seconds per image on this machine", columns, rows, LATENCY_NOTE)


def values(exhibit: Exhibit) -> dict[str, Any]:
    """Return an exhibit as values for JSON, without pixels."""
    shared = {"title": exhibit.title, "note": exhibit.note}
    if isinstance(exhibit, Gallery):
        rows, headings = list(exhibit.rows), list(exhibit.headings)
        return {**shared, "images": len(exhibit.images), "rows": rows, "headings": headings}
    if isinstance(exhibit, Table):
        rows = [
            [cell.item() if isinstance(cell, np.generic) else cell for cell in row] for row in exhibit.rows
        ]
        return {**shared, "columns": list(exhibit.columns), "rows": rows}
    lines = {name: [asdict(point) for point in line] for name, line in exhibit.lines.items()}
    return {**shared, "x": exhibit.x_label, "y": exhibit.y_label, "lines": lines}


def _ratios(samples: Sequence[Sampled]) -> dict[str, list[Point]]:
    return _lines([(s.family, Point(s.nfe, s.mean("ratio"), s.spread)) for s in samples])


def _errors(inversions: Sequence[Inverted]) -> dict[str, list[Point]]:
    return _lines([(i.line, Point(i.nfe, i.mse, i.error)) for i in inversions])


def _lines(points: Sequence[tuple[str, Point]]) -> dict[str, list[Point]]:
    """Name → points, from pairs of a name and a point."""
    lines: dict[str, list[Point]] = {}
    for name, point in points:
        lines.setdefault(name, []).append(point)
    return lines


def _baselines(lines: Mapping[str, list[Point]]) -> dict[str, list[Point]]:
    return {name: line for name, line in lines.items() if not name.startswith("BCM")}


def _scores(scores: Scores, spread: float | None) -> tuple[str, ...]:
    """Return the cells of a table row. spread: the spread of the ratio."""
    ratio = f"{scores.ratio:.2f}" + (f" ± {spread:.2f}" if spread else "")
    precision, recall = f"{scores.precision:.3f}", f"{scores.recall:.3f}"
    return f"{scores.frechet:.3g}", ratio, f"{1000 * scores.kid:.2f}", precision, recall
