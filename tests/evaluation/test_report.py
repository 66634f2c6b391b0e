"""The parts of a report: curves, exhibits, and the levels that are inserted into a schedule."""

from __future__ import annotations

import base64
import io
import json
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
from curve_points import line
from evaluation_page import Reader
from PIL import Image

from bcm_edge.evaluation.claims import Claim
from bcm_edge.evaluation.exhibits import Curves, Gallery, Point, Table
from bcm_edge.evaluation.page import Page, Section, render, strips
from bcm_edge.evaluation.plots import svg
from bcm_edge.evaluation.report import values
from bcm_edge.evaluation.rivals import with_level_inserted
from bcm_edge.runtime.pictures.writing import heat
from bcm_edge.runtime.schedule import parse_schedule

SVG = "{http://www.w3.org/2000/svg}"


def test_level_is_inserted_in_the_widest_gap():
    third = with_level_inserted(parse_schedule("+0.07 0.07>1.25>80"))  # √(1.25 · 80) = 10
    assert str(third) == "+0.07 0.07>1.25>10>80"
    assert str(with_level_inserted(third)) == "+0.07 0.07>0.296>1.25>10>80"


def test_heat_map_has_the_colours_black_red_yellow_white():
    colours = heat(np.array([[[[0, 1 / 3, 2 / 3, 1, 7]]]]))[0, :, 0].T
    assert colours.tolist() == [[-1, -1, -1], [1, -1, -1], [1, 1, -1], [1, 1, 1], [1, 1, 1]]


def test_curves_are_drawn_as_svg_with_all_names():
    lines = {
        "BCM": line((1, 2), (4, 1), spread=0.1),
        "Heun <2nd>": line((3, 9)),
        "real images": line((1, 1), (4, 1)),
        "_$a$": line((2, 2)),
    }
    picture = svg(Curves("a & b", "network calls", "cost in $", lines, log_x=True, log_y=True))
    root = ElementTree.fromstring(picture)
    words = [element.text for element in root.iter(f"{SVG}text")]
    assert {"BCM", "Heun <2nd>", "real images", "network calls"} <= set(words)
    assert any("_$a$" in str(word) for word in words)
    assert "width" not in root.attrib
    assert root.attrib["viewBox"]
    assert svg(Curves("a & b", "network calls", "cost in $", lines, log_x=True, log_y=True)) == picture
    references = set(re.findall(r'(?:href="|url\()#([^")]+)', picture))
    assert references and references <= ids_of(picture)
    assert not ids_of(picture) & ids_of(svg(Curves("c", "x", "y", lines)))


def ids_of(picture: str) -> set[str]:
    """Return the ids of all elements of an SVG picture."""
    return set(re.findall(r'\bid="([^"]+)"', picture))


def drawn_lines(lines: dict[str, list[Point]]) -> list[tuple[str, str, frozenset[str]]]:
    """Return colour, dashes and marker shape of each line in a plot. The shape has the bars of spreads."""
    root = ElementTree.fromstring(svg(Curves("t", "x", "y", lines)))
    dashes: dict[str, str] = {}
    shapes: dict[str, set[str]] = {}
    for group in (group for group in root.iter(f"{SVG}g") if "line2d" in group.attrib.get("id", "")):
        for path in group.iter(f"{SVG}path"):
            style = path.attrib.get("style", "")
            colour = re.search(r"stroke: var\(--(?!ink|grid)\w+", style)
            if colour and "id" in path.attrib:
                shapes.setdefault(colour[0], set()).add(path.attrib["d"])
            elif colour:
                dashes[colour[0]] = "".join(re.findall(r"stroke-dasharray: ([^;]+)", style))
    return [(colour, pattern, frozenset(shapes.get(colour, ()))) for colour, pattern in dashes.items()]


def test_lines_differ_in_colour_and_dashes_and_marker():
    names = ("BCM", "BCM, other way back", "Heun", "DDIM", "real images")
    drawn = drawn_lines({name: line((1, y), (2, y)) for y, name in enumerate(names, 1)})
    assert len(drawn) == 5
    for differing in zip(*drawn, strict=True):
        assert len(set(differing)) == 5


def test_samplers_look_the_same_in_every_plot():
    (alone,) = drawn_lines({"DDIM": line((1, 2))})
    assert alone in drawn_lines({"BCM": line((1, 2)), "other": line((2, 2)), "DDIM": line((1, 3))})


def test_every_kind_of_exhibit_is_shown_with_its_note():
    images = np.linspace(-1, 1, 5 * 3 * 4 * 4, dtype=np.float32).reshape(5, 3, 4, 4)
    gallery = Gallery(
        "Pictures <1>", images, 3, ["first & row"], "gallery's note", ["<left>", "middle", "right"]
    )
    exhibits = [
        Table("Rows", ["a<b"], [["<i>"], [np.float32(0.5)]], "table's note"),
        gallery,
        Curves("C", "x", "y", {}, note="curves' note"),
    ]
    claim = Claim("Claim <c>", "partly reached", ("one", "two"), "with 3 calls, not with 1", "cave & at")
    facts = {"Data": {"n & m": "<7>", "caution": "old & new"}}
    sections = [Section("S & S", exhibits)]
    page = Page("<T>", "sum & mary", [claim], exhibits[2], gallery, facts, sections, ["x > y"])
    page = Reader(render(page))
    assert page.open == []
    texts = ("<T>", "sum & mary", "S & S", "a<b", "<i>", "0.5", "Pictures <1>", "first & row", "x > y")
    texts += ("Claim <c>", "reached with 3 calls, not with 1 : one", "two", "Caveat: cave & at")
    texts += ("n & m", "<7>", "Caution: old & new", "<left>", "middle", "right")
    for text in (*texts, "table's note", "gallery's note", "curves' note"):
        assert text in page.text
    alternatives = [attributes["alt"] for tag, attributes in page.tags if tag == "img"]
    assert alternatives == ["3 images: first & row", "2 images: Pictures <1>"] * 2
    # A strip has 3 images of 4 pixels with one pixel between them, 21 times as large.
    assert [(strip.width, strip.height) for strip in strips(gallery)] == [(14 * 21, 4 * 21)] * 2
    assert values(gallery)["headings"] == ["<left>", "middle", "right"]
    assert json.loads(json.dumps(values(exhibits[0])))["rows"] == [["<i>"], [0.5]]


def test_cells_between_and_after_images_are_transparent():
    for channels in (1, 3):
        gallery = Gallery("Grey", np.zeros((3, channels, 4, 4), np.float32), 2)
        sheets = [Image.open(io.BytesIO(base64.b64decode(s.uri.partition(",")[2]))) for s in strips(gallery)]
        opacity = [np.asarray(sheet.convert("RGBA"))[0, :, 3].tolist() for sheet in sheets]
        assert opacity == [[255] * 4 + [0] + [255] * 4, [255] * 4 + [0] * 5]


def test_headings_have_anchors_and_are_in_the_contents():
    table = Table("Rows & more", ["a"], [["b"]])
    curves = Curves("C", "x", "y", {})
    gallery = Gallery("Rows & more", np.zeros((1, 1, 4, 4), np.float32), 1)
    sections = [Section("One", [table, curves, gallery]), Section("Two", [table])]
    plot = Curves("Plot", "x", "y", {})
    page = Reader(render(Page("T", "", [], plot, gallery, {}, sections, [])))
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    headings = [attributes.get("id") for tag, attributes in page.tags if tag in ("h2", "h3")]
    # The gallery is below the heading of the table with the same title.
    assert headings[1:] == [
        *("claims", "provenance", "one", "one-rows-more", "one-c", "two", "two-rows-more"),
        "to-make-this-page-again",
    ]
    links = [attributes["href"] for tag, attributes in page.tags if tag == "a"]
    assert set(links) == {f"#{heading}" for heading in headings[1:]}
    assert links[:4] == ["#claims", "#provenance", "#one", "#one-rows-more"]
