"""The page of an evaluation in a headless browser: its first screen, its colours, and its accessibility."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chromium import accessibility_findings, needs_axe, needs_browser
from curve_points import line
from fixture_types import ROOT

from bcm_edge.evaluation.claims import PARTLY, REACHED, Claim
from bcm_edge.evaluation.exhibits import Curves, Gallery, Table
from bcm_edge.evaluation.page import Page, Section, render

pytestmark = [needs_browser, pytest.mark.slow]

REPORTS = sorted((ROOT / "docs").glob("report-*.html"))
# The colour of the page, and those of the lines in plots: red, green and blue from 0 to 255.
COLOURS = r"""() => {
    const numbers = text => text.match(/[\d.]+/g).slice(0, 3).map(Number);
    const paths = [...document.querySelectorAll("svg g[id*=line2d] > path")];
    const drawn = paths.filter(path => !path.getAttribute("style").includes("--grid"));
    const page = getComputedStyle(document.body).backgroundColor;
    return [page, ...drawn.map(path => getComputedStyle(path).stroke)].map(numbers);
}"""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with every kind of exhibit, made by today's template."""
    lines = {
        name: line((1, y), (4, y + 1)) for y, name in enumerate(("BCM", "BCM, b", "Heun", "DDIM", "other"), 1)
    }
    plot = Curves(
        "Ratio", "calls", "ratio", {**lines, "real images": line((1, 1), (4, 1))}, note="Lower is better."
    )
    gallery = Gallery(
        "Pictures",
        np.zeros((20, 1, 8, 8), np.float32),
        10,
        ["first row", "second row"],
        "A note.",
        list("abcdefghij"),
    )
    table = Table(
        "Rows", ["sampler", *"abcdefghijklmn"], [["BCM", *range(14)], ["Heun", *range(14)]], "A note."
    )
    curves = Curves("Error", "calls", "error", lines, log_y=True)
    claims = [
        Claim("Generation", PARTLY, ("one", "two"), "with 3 calls, not with 1", "Unequal."),
        Claim("Inversion", REACHED, ("one",)),
        Claim("Rising", "not reached", ("one",)),
        Claim("Other", "not measured", ("one",)),
    ]
    facts = {"Data": {"images": "7", "caution": "old"}}
    page = Page(
        "T", "a", claims, plot, gallery, facts, [Section("All", [table, curves, gallery])], ["a command"]
    )
    file = tmp_path_factory.mktemp("report") / "page.html"
    file.write_text(render(page), encoding="utf-8")
    return file


@pytest.fixture
def opened(browser: Any) -> Iterator[Any]:
    """Open a file in a window of 1280×800 pixels: opened(file, "dark")."""
    contexts = []

    def opened(file: Path, scheme: str) -> Any:
        contexts.append(browser.new_context(viewport={"width": 1280, "height": 800}, color_scheme=scheme))
        page = contexts[-1].new_page()
        page.goto(file.as_uri())
        return page

    yield opened
    for context in contexts:
        context.close()


@pytest.mark.parametrize("file", REPORTS, ids=lambda file: file.stem)
def test_first_screen_has_verdicts_and_samples_and_plot(opened: Any, file: Path):
    page = opened(file, "light")
    shown = page.locator("#overview :is(.claim, svg, .strip img)")
    boxes = [shown.nth(index).bounding_box() for index in range(shown.count())]
    assert len(boxes) == 6  # four claims, the plot, one row of samples
    assert all(box["y"] >= 0 and box["y"] + box["height"] <= 800 for box in boxes)
    assert not page.get_by_text("sha256").first.is_visible()
    page.get_by_text("Model, data, versions and command").click()
    assert page.get_by_text("sha256").first.is_visible()


@needs_axe
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_is_accessible(opened: Any, report: Path, scheme: str):
    page = opened(report, scheme)
    page.locator("details").evaluate_all("all => all.forEach(one => one.open = true)")
    assert accessibility_findings(page) == []


@needs_axe
@pytest.mark.parametrize("file", REPORTS, ids=lambda file: file.stem)
def test_published_reports_are_accessible(opened: Any, file: Path):
    assert accessibility_findings(opened(file, "dark")) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_lines_stand_out_from_the_page(opened: Any, report: Path, scheme: str):
    page, *drawn = opened(report, scheme).evaluate(COLOURS)
    assert (luminance(page) > 0.5) == (scheme == "light")
    assert len({tuple(colour) for colour in drawn}) >= 6
    assert min(contrast(page, colour) for colour in drawn) >= 3  # WCAG 2.2, success criterion 1.4.11


def test_page_is_as_wide_as_a_phone(browser: Any, report: Path):
    page = browser.new_page(viewport={"width": 390, "height": 800})
    page.goto(report.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    page.close()


def luminance(colour: list[float]) -> float:
    """The relative luminance of WCAG, from red, green and blue in [0, 255]."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (v / 255 for v in colour)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a: list[float], b: list[float]) -> float:
    """The contrast ratio of WCAG, from 1 to 21."""
    light, dark = sorted((luminance(a), luminance(b)), reverse=True)
    return (light + 0.05) / (dark + 0.05)
