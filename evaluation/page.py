"""The page of a report: claims, exhibits and facts as one HTML file that needs no other file."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from ..runtime.pixels import to_uint8
from .claims import Claim
from .exhibits import NOTHING, Curves, Exhibit, Gallery
from .plots import COLOURS, svg

CELL = 84  # CSS pixels to which small images are enlarged, by a whole factor
# A number, perhaps with a sign, an exponent, %, a spread, or a range in brackets.
NUMBER = re.compile(r"[-−+≥≤<]*\d[\d.,]*(e[-+]?\d+)?\s?%?( ± \S+)?( \(.*\))?")


@dataclass(frozen=True)
class Section:
    """A part of the page with a heading."""

    title: str
    exhibits: Sequence[Exhibit]

    @property
    def groups(self) -> dict[str, list[Exhibit]]:
        """Title → the exhibits with that title. Each title is one heading."""
        groups: dict[str, list[Exhibit]] = {}
        for exhibit in self.exhibits:
            groups.setdefault(exhibit.title, []).append(exhibit)
        return groups


@dataclass(frozen=True)
class Page:
    """The content of the report. Claims, plot and samples are on the first screen."""

    title: str
    # one line below the title
    summary: str
    claims: Sequence[Claim]
    # the plot beside the claims
    plot: Curves
    # one row of pictures
    samples: Gallery
    # heading → name → value
    facts: Mapping[str, Mapping[str, str]]
    sections: Sequence[Section]
    # the commands that make the page again
    commands: Sequence[str]

    @property
    def cautions(self) -> list[str]:
        """The facts named "caution". The page shows them below the claims."""
        return [values["caution"] for values in self.facts.values() if "caution" in values]


def render(page: Page) -> str:
    """Return the page as HTML. Everything in it is escaped except the curves drawn by plots.py."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2").render(
        page=page,
        colours=COLOURS,
        kind=lambda exhibit: type(exhibit).__name__,
        svg=lambda curves: Markup(svg(curves)),
        strips=strips,
        number=_is_number,
        anchor=anchor,
    )


@dataclass(frozen=True)
class Strip:
    """One row of a gallery as a picture."""

    label: str
    # a PNG as a data URI
    uri: str
    # CSS pixels
    width: int
    height: int
    # the text for those who do not see the picture
    alt: str


def strips(gallery: Gallery) -> list[Strip]:
    """Return the rows of a gallery as pictures, with one transparent pixel between images."""
    n, channels, height, width = gallery.images.shape
    factor, step = max(1, CELL // width), width + 1
    rows = []
    for number, start in enumerate(range(0, n, gallery.columns)):
        row = to_uint8(gallery.images[start : start + gallery.columns])
        sheet = np.zeros((height, gallery.columns * step - 1, channels + 1), np.uint8)
        for index, image in enumerate(row):
            cell = sheet[:, index * step : index * step + width]
            cell[..., :-1], cell[..., -1] = image.transpose(1, 2, 0), 255
        label = gallery.rows[number] if number < len(gallery.rows) else ""
        alt = f"{len(row)} image{'' if len(row) == 1 else 's'}: {label or gallery.title}"
        rows.append(Strip(label, _png(sheet), factor * sheet.shape[1], factor * height, alt))
    return rows


def anchor(*titles: str) -> str:
    """Return the id of a heading from its title and those above it: lower case, with hyphens."""
    return "-".join(re.sub(r"\W+", "-", title.lower()).strip("-") for title in titles)


def _png(pixels: np.ndarray) -> str:
    """pixels: uint8 [H, W, 2] of grey and opacity, or uint8 [H, W, 4]."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def _is_number(cell: object) -> bool:
    """Whether a cell is aligned to the right: a number, or NOTHING."""
    return not isinstance(cell, str) or cell == NOTHING or NUMBER.fullmatch(cell) is not None
