"""The page that says how good a bundle is: what was measured as exhibits, and those as one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from ..runtime.pixels import to_uint8
from .claims import Claim, generation_claim, inversion_claim, rising_claim
from .comparison import Inverted, Latency, Sampled
from .exhibits import Curves, Exhibit, Gallery, Point, Table
from .plots import LEVEL, svg
from .quality import Scores

CELL = 56  # CSS pixels to which small images are enlarged, by a whole factor
NOTHING = "–"
NUMBER = re.compile(r"[-−+≥≤<]*\d[\d.,]*(e[-+]?\d+)?\s?%?( ± \S+)?( \(.*\))?")
GENERATION_NOTE = (
    "Fréchet ratio: distance of the samples to the held-out images, divided by that of as many training images, so that real images "
    "score 1; the lower the better. Mean ± its standard error over sets of seeds, where there was more than one."
)
KID_NOTE = "KID may be negative, more so where both sets have the same share of every class."
SECONDS_NOTE = "The BCM is played by its backend, the baselines by torch, and not in turns, so their seconds do not compare; network calls do."
INVERSION_NOTE = (
    "MSE: mean squared difference in [0, 1] of pixels rounded to uint8 ± its standard error over the images; PSNR: the median, in dB; "
    "SSIM: the mean. Network calls count both ways. Latents are in units of σ_max: white noise would have mean 0, standard deviation 1. "
    "Heun and DDIM add no noise, the BCM a little before it inverts."
)
LATENCY_NOTE = "Median seconds per image over several runs, and where the middle half of them lies; drawing the noise is included."


@dataclass(frozen=True)
class Section:
    title: str
    exhibits: Sequence[Exhibit]


@dataclass(frozen=True)
class Page:
    """What the report shows. facts: heading → name → value; commands: lines to type, for whoever makes the page again."""

    title: str
    facts: Mapping[str, Mapping[str, str]]
    claims: Sequence[Claim]
    sections: Sequence[Section]
    commands: Sequence[str]


def claims(samples: Sequence[Sampled], inversions: Sequence[Inverted]) -> list[Claim]:
    """What came out of the paper's claims."""
    generation, inversion = _ratios(samples), _errors(inversions)
    ours = [p for name, line in inversion.items() if name.startswith("BCM") for p in line]
    return [
        generation_claim(generation["BCM"], _without_ours(generation)),
        inversion_claim(ours, _without_ours(inversion)),
        rising_claim(generation["BCM"], "samples (Fréchet ratio)", ".2f"),
        rising_claim(ours, "reconstructions (MSE)", "#.2g"),
    ]


def generation_exhibits(samples: Sequence[Sampled], real: Scores) -> list[Exhibit]:
    """real: the scores of training images, as many as were generated."""
    lines = _ratios(samples)
    ends = [point.x for line in lines.values() for point in line]
    level = {LEVEL: [Point(min(ends), 1.0), Point(max(ends), 1.0)]}
    curves = Curves(
        "Fréchet ratio over network calls",
        "network calls (NFE)",
        "Fréchet ratio",
        {**lines, **level},
        True,
        True,
        GENERATION_NOTE,
    )
    columns = (
        "sampler",
        "levels",
        "NFE",
        "Fréchet distance",
        "ratio",
        "KID ×1000",
        "precision",
        "recall",
        "label agreement",
        "s/image",
    )
    first = (
        "training images",
        NOTHING,
        NOTHING,
        *_scores(real.frechet, real.ratio, None, real.kid, real.precision, real.recall),
    )
    rows: list[Sequence[object]] = [(*first, NOTHING, NOTHING)]
    for s in samples:
        figures = (s.mean(name) for name in ("kid", "precision", "recall"))
        label = NOTHING if s.agreement is None else f"{s.agreement:.1%}"
        shown = _scores(s.mean("frechet"), s.mean("ratio"), s.spread, *figures)
        rows.append((_sampler(s), s.program, s.nfe, *shown, label, f"{s.seconds:#.2g}"))
    note = f"All of these depend on the number of images: compare them with the first row, not with other pages. {KID_NOTE} {SECONDS_NOTE}"
    return [curves, Table("Generation", columns, rows, note)]


def inversion_exhibits(inversions: Sequence[Inverted]) -> list[Exhibit]:
    curves = Curves(
        "Reconstruction error over network calls",
        "network calls up and down",
        "MSE",
        _errors(inversions),
        True,
        True,
        INVERSION_NOTE,
    )
    columns = ("sampler", "levels", "NFE", "MSE", "PSNR dB", "SSIM", "latent mean", "latent std", "s/image")
    rows = [
        (
            *(
                f"BCM {i.name}" if i.line.startswith("BCM") else i.name,
                i.program,
                i.nfe,
                f"{i.mse:#.3g} ± {i.error:#.2g}",
            ),
            *(
                f"{i.psnr:.1f}",
                f"{i.ssim:.3f}",
                f"{i.latent_mean:.3f}",
                f"{i.latent_std:.3f}",
                f"{i.seconds:#.2g}",
            ),
        )
        for i in inversions
    ]
    return [curves, Table("Inversion and reconstruction", columns, rows, SECONDS_NOTE)]


def latency_exhibit(
    times: Sequence[Latency],
    samples: Sequence[Sampled],
    inversions: Sequence[Inverted],
    nfe: Mapping[str, int],
) -> Table:
    """nfe: schedule → network calls."""
    batches = sorted({t.batch for t in times})
    seconds = {(t.name, t.batch): f"{t.seconds:#.2g} ({t.low:#.2g} – {t.high:#.2g})" for t in times}
    ratios = {s.name: f"{s.mean('ratio'):.2f}" for s in samples if s.family == "BCM"}
    errors = {
        i.name.removesuffix(", one-step"): f"{i.mse:#.2g}"
        for i in inversions
        if i.name.endswith(", one-step")
    }
    columns = (
        "schedule",
        "NFE",
        "Fréchet ratio",
        "one-step reconstruction MSE",
        *(f"s/image, batch {batch}" for batch in batches),
    )
    rows = [
        (
            name,
            calls,
            ratios.get(name, NOTHING),
            errors.get(name, NOTHING),
            *(seconds[name, batch] for batch in batches),
        )
        for name, calls in nfe.items()
    ]
    return Table("Seconds per image on this machine", columns, rows, LATENCY_NOTE)


def values(exhibit: Exhibit) -> dict[str, Any]:
    """What JSON tells of an exhibit: all but the pixels."""
    if isinstance(exhibit, Gallery):
        return {
            "title": exhibit.title,
            "images": len(exhibit.images),
            "rows": list(exhibit.rows),
            "note": exhibit.note,
        }
    if isinstance(exhibit, Table):
        rows = [
            [cell.item() if isinstance(cell, np.generic) else cell for cell in row] for row in exhibit.rows
        ]
        return {"title": exhibit.title, "columns": list(exhibit.columns), "rows": rows, "note": exhibit.note}
    lines = {name: [asdict(point) for point in line] for name, line in exhibit.lines.items()}
    return {
        "title": exhibit.title,
        "x": exhibit.x_label,
        "y": exhibit.y_label,
        "lines": lines,
        "note": exhibit.note,
    }


def render(page: Page) -> str:
    """The page as HTML, everything in it escaped but the drawings made here."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    return environment.get_template("report.html.j2").render(
        page=page,
        kind=lambda exhibit: type(exhibit).__name__,
        svg=lambda curves: Markup(svg(curves)),
        strips=strips,
        number=_is_number,
    )


@dataclass(frozen=True)
class Strip:
    """A row of a gallery: what it shows, a PNG as a data URI, and the width in CSS pixels it is shown at."""

    label: str
    uri: str
    width: int


def strips(gallery: Gallery) -> list[Strip]:
    """The rows of a gallery as pictures, a white pixel between images."""
    n, channels, height, width = gallery.images.shape
    factor, step = max(1, CELL // width), width + 1
    found = []
    for start in range(0, n, gallery.columns):
        row = to_uint8(gallery.images[start : start + gallery.columns])
        sheet = np.full((height, gallery.columns * step - 1, channels), 255, np.uint8)
        for index, image in enumerate(row):
            sheet[:, index * step : index * step + width] = image.transpose(1, 2, 0)
        number = start // gallery.columns
        label = gallery.rows[number] if number < len(gallery.rows) else ""
        found.append(Strip(label, _png(sheet), factor * sheet.shape[1]))
    return found


def _png(pixels: np.ndarray) -> str:
    file = io.BytesIO()
    Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(file, "png", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def _is_number(cell: object) -> bool:
    """Whether a cell is set flush right: a number, perhaps with %, a spread or a range behind it, or nothing."""
    return not isinstance(cell, str) or cell == NOTHING or NUMBER.fullmatch(cell) is not None


def _ratios(samples: Sequence[Sampled]) -> dict[str, list[Point]]:
    return _lines([(s.family, Point(s.nfe, s.mean("ratio"), s.spread)) for s in samples])


def _errors(inversions: Sequence[Inverted]) -> dict[str, list[Point]]:
    return _lines([(i.line, Point(i.nfe, i.mse, i.error)) for i in inversions])


def _lines(points: Sequence[tuple[str, Point]]) -> dict[str, list[Point]]:
    found: dict[str, list[Point]] = {}
    for name, point in points:
        found.setdefault(name, []).append(point)
    return found


def _without_ours(lines: Mapping[str, list[Point]]) -> dict[str, list[Point]]:
    return {name: line for name, line in lines.items() if not name.startswith("BCM")}


def _sampler(sample: Sampled) -> str:
    return f"BCM {sample.name}" if sample.family == "BCM" else sample.name


def _scores(
    frechet: float, ratio: float, spread: float | None, kid: float, precision: float, recall: float
) -> tuple[str, ...]:
    ratios = f"{ratio:.2f}" + (f" ± {spread:.2f}" if spread else "")
    return f"{frechet:.3g}", ratios, f"{1000 * kid:.2f}", f"{precision:.3f}", f"{recall:.3f}"
