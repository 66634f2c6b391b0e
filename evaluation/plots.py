"""Curves as an SVG element for a page: text stays text, nothing is loaded, equal values give equal bytes."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from .exhibits import Curves, Point

SIZE = 6.4, 4.2  # inches; small, so that the text is legible on a phone
FONT = 12  # points
KNOWN = {"Heun": "#d9730d", "DDIM": "#5f7f3a"}  # line → its colour in every plot
EMPHASISED = ("#0b4f9e", "#4c9be8")  # colours of lines whose name begins with BCM
OTHERS = ("#7d4fa8", "#b3364b", "#2a8f8f", "#8a6d3b", "#6b6b6b")
LEVEL = "real images"  # the name of a line that is drawn as a level to compare with
TICKS = (1, 2, 5)


def svg(curves: Curves) -> str:
    """Return an <svg> element. Its ids differ from those of curves with other titles."""
    salt = hashlib.sha256(curves.title.encode()).hexdigest()[:8]
    style: dict[Any, Any] = {
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
    return _for_a_page(file.getvalue(), salt)


def _draw(axes: Axes, curves: Curves) -> None:
    emphasised, others = iter(EMPHASISED * len(curves.lines)), iter(OTHERS * len(curves.lines))
    for name, line in curves.lines.items():
        label = _label(name)
        if name == LEVEL:
            _draw_line(axes, line, "--", label, color="#555555", linewidth=1.3)
        elif name.startswith("BCM"):
            style = {"color": next(emphasised), "linewidth": 3, "markersize": 8, "zorder": 5}
            _draw_line(axes, line, "o-", label, capsize=4, **style)
        else:
            style = {"color": KNOWN.get(name) or next(others), "linewidth": 1.5, "markersize": 4.5}
            _draw_line(axes, line, "s-", label, capsize=3, **style)
    axes.set(xlabel=curves.x_label, ylabel=curves.y_label)
    if curves.log_x:
        _logarithmic(axes, "x")
    if curves.log_y:
        _logarithmic(axes, "y")
    axes.grid(color="#dddddd", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    if curves.lines:
        axes.legend(frameon=False, fontsize=FONT - 1)


def _draw_line(
    axes: Axes, line: Sequence[Point], form: str, label: str, capsize: int | None = None, **style: Any
) -> None:
    """Draw a line; with a capsize also the spread of each point."""
    points = sorted(line, key=lambda point: point.x)
    x, y = [point.x for point in points], [point.y for point in points]
    if capsize is None:
        axes.plot(x, y, form, label=label, **style)
    else:
        spread = [point.spread or 0 for point in points]
        axes.errorbar(x, y, spread, fmt=form, capsize=capsize, label=label, **style)


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


def _for_a_page(text: str, salt: str) -> str:
    """The <svg> element alone, as wide as its column, with ids that begin with the salt."""
    text = text[text.index("<svg") :].strip()
    text = re.sub(r'\bid="', f'id="{salt}-', text)
    text = re.sub(r'(xlink:href="|url\()#', rf"\g<1>#{salt}-", text)
    head, rest = text.split(">", 1)
    return re.sub(r' (width|height)="[^"]*"', "", head) + ' role="img">' + rest
