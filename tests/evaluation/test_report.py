"""The parts of a report: curves, exhibits, and the levels that are inserted into a schedule."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
from curve_points import line
from evaluation_page import Reader

from bcm_edge.evaluation.exhibits import Curves, Gallery, Table
from bcm_edge.evaluation.plots import KNOWN, svg
from bcm_edge.evaluation.report import Page, Section, render, strips, values
from bcm_edge.evaluation.rivals import with_level_inserted
from bcm_edge.runtime.pictures.writing import heat
from bcm_edge.runtime.schedule import parse_schedule


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
    words = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
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


def test_samplers_have_the_same_colour_in_every_plot():
    for lines in ({"DDIM": line((1, 2))}, {"BCM": line((1, 2)), "other": line((2, 2)), "DDIM": line((1, 3))}):
        assert KNOWN["DDIM"] in svg(Curves("t", "x", "y", lines))


def test_every_kind_of_exhibit_is_shown_with_its_note():
    images = np.linspace(-1, 1, 5 * 3 * 4 * 4, dtype=np.float32).reshape(5, 3, 4, 4)
    gallery = Gallery("Pictures <1>", images, 3, ["first & row"], "gallery's note")
    exhibits = [
        Table("Rows", ["a<b"], [["<i>"], [np.float32(0.5)]], "table's note"),
        gallery,
        Curves("C", "x", "y", {}, note="curves' note"),
    ]
    page = Reader(render(Page("<T>", {}, [], [Section("S & S", exhibits)], ["x > y"])))
    assert page.open == []
    texts = ("<T>", "S & S", "a<b", "<i>", "0.5", "Pictures <1>", "first & row", "x > y")
    for text in (*texts, "table's note", "gallery's note", "curves' note"):
        assert text in page.text
    alternatives = [attributes["alt"] for tag, attributes in page.tags if tag == "img"]
    assert alternatives == ["first & row", "Pictures <1>"]
    # A strip has 3 images of 4 pixels with one pixel between them, 14 times as large.
    assert [strip.width for strip in strips(gallery)] == [14 * 14] * 2
    assert json.loads(json.dumps(values(exhibits[0])))["rows"] == [["<i>"], [0.5]]
