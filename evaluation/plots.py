"""Curves as an SVG element for a page: text stays text, nothing is loaded, equal values give equal bytes.

Lines differ in colour, marker and dashes. Colours are CSS variables, so that a page can have a dark mode.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from .exhibits import Curves, Point

SIZE = 6.4, 4.2  # inches; small, so that the text is legible on a phone
FONT = 12  # points
# CSS variable → its colour on a white page, and on a dark one. Lines have the colours of Okabe and Ito, which
# readers with a colour vision deficiency can tell apart, darkened on white to a contrast of at least 3.
COLOURS = {
    "ink": ("#1c1c1e", "#ececf0"),
    "grid": ("#dddddf", "#3c3c42"),
    "level": ("#55555a", "#b4b4ba"),
    "blue": ("#0072b2", "#6bb8f0"),
    "vermillion": ("#d05a00", "#f0883e"),
    "green": ("#00805e", "#2fc79d"),
    "purple": ("#a8487f", "#e08fbf"),
    "brown": ("#7a5c00", "#e6b422"),
    "sky": ("#3a86b8", "#a5d8f7"),
}


@dataclass(frozen=True)
class Style:
    """The colour, marker and dashes of a line, as matplotlib names them."""

    colour: str
    marker: str
    dashes: str | tuple[float, tuple[float, ...]]


KNOWN = {"Heun": Style("vermillion", "s", "--"), "DDIM": Style("green", "^", "-.")}  # in every plot
EMPHASISED = (Style("blue", "o", "-"), Style("sky", "D", ":"))  # of lines whose name begins with BCM
OTHERS = (
    Style("purple", "v", "-"),
    Style("brown", "X", "--"),
    Style("green", "P", "-."),
    Style("vermillion", "<", ":"),
    Style("sky", "*", (0, (6, 1.5))),
)
INKED = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")
LEVEL = "real images"  # the name of a line that is drawn as a level to compare with
TICKS = (1, 2, 5)


def svg(curves: Curves) -> str:
    """Return an <svg> element. Its ids differ from those of curves with other titles."""
    salt = hashlib.sha256(curves.title.encode()).hexdigest()[:8]
    style: dict[Any, Any] = {
        **dict.fromkeys(INKED, COLOURS["ink"][0]),
        "svg.fonttype": "none",
        "svg.hashsalt": salt,
        "font.family": "sans-serif",
        "font.size": FONT,
    }
    no_metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))  # a date would change in every run
    with mpl.rc_context(style):
        figure = Figure(figsize=SIZE, layout="constrained")
        _draw(figure.subplots(), curves)
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata=no_metadata, transparent=True)
    return _for_a_page(file.getvalue(), salt, f"{curves.title}, lines: {', '.join(curves.lines)}")


def _draw(axes: Axes, curves: Curves) -> None:
    emphasised, others = iter(EMPHASISED * len(curves.lines)), iter(OTHERS * len(curves.lines))
    for name, line in curves.lines.items():
        if name == LEVEL:
            x, y = [point.x for point in line], [point.y for point in line]
            axes.plot(x, y, linestyle=(0, (1, 3)), label=name, color=COLOURS["level"][0], linewidth=1.6)
        elif name.startswith("BCM"):
            _draw_line(axes, name, line, next(emphasised), linewidth=2.6, markersize=8, zorder=5)
        else:
            _draw_line(axes, name, line, KNOWN.get(name) or next(others), linewidth=1.6, markersize=6)
    axes.set(xlabel=curves.x_label, ylabel=curves.y_label)
    if curves.log_x:
        _logarithmic(axes, "x")
    if curves.log_y:
        _logarithmic(axes, "y")
    axes.grid(color=COLOURS["grid"][0], linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    if curves.lines:
        axes.legend(frameon=False, fontsize=FONT - 1, handlelength=3.5)


def _draw_line(axes: Axes, name: str, line: Sequence[Point], style: Style, **options: Any) -> None:
    """Draw a line, its points, and the spread of each point."""
    points = sorted(line, key=lambda point: point.x)
    x, y = [point.x for point in points], [point.y for point in points]
    spread = [point.spread or 0 for point in points]
    colour = COLOURS[style.colour][0]
    line_style = {"marker": style.marker, "linestyle": style.dashes, "color": colour}
    axes.errorbar(x, y, spread, capsize=3, label=_label(name), **line_style, **options)


def _label(name: str) -> str:
    """The name, escaped: matplotlib sets formulas between two $, and hides names that begin with _."""
    name = name.replace("$", r"\$")
    return f"\u200b{name}" if name.startswith("_") else name


def _logarithmic(axes: Axes, direction: str) -> None:
    """Make an axis, "x" or "y", logarithmic.

    The ticks are at 1, 2, 5, 10, … if it covers less than three decades, otherwise at powers of ten, as plain
    numbers.
    """
    axes.set(**{f"{direction}scale": "log"})
    axis = axes.xaxis if direction == "x" else axes.yaxis
    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=TICKS if high / low < 1000 else (1,), numticks=20))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())
    axis.set_minor_locator(NullLocator())


def _for_a_page(text: str, salt: str, name: str) -> str:
    """The <svg> element alone, as wide as its column, with ids that begin with the salt.

    name: says what the picture shows, for those who do not see it.
    """
    text = text[text.index("<svg") :].strip()
    text = re.sub(r'\bid="', f'id="{salt}-', text)
    text = re.sub(r'(xlink:href="|url\()#', rf"\g<1>#{salt}-", text)
    for variable, (colour, _) in COLOURS.items():
        text = text.replace(colour, f"var(--{variable}, {colour})")
    head, rest = text.split(">", 1)
    head = re.sub(r' (width|height)="[^"]*"', "", head)
    return f'{head} role="img" aria-label="{escape(name, quote=True)}">{rest}'
