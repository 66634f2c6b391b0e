"""Curves as SVG that stands in a page: text stays text, nothing is loaded, and the same values give the same bytes."""

from __future__ import annotations

import hashlib
import io
import re
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from .exhibits import Curves

SIZE = 6.4, 4.2  # inches; small, so that text stays legible on a phone
FONT = 12  # points
KNOWN = {"Heun": "#d9730d", "DDIM": "#5f7f3a"}  # the same in every plot
EMPHASISED = ("#0b4f9e", "#4c9be8")  # for lines whose name begins with BCM
OTHERS = ("#7d4fa8", "#b3364b", "#2a8f8f", "#8a6d3b", "#6b6b6b")
LEVEL = "real images"  # a line of this name is a level to compare with
TICKS = (1, 2, 5)


def svg(curves: Curves) -> str:
    """An <svg> element, its ids distinct from those of other curves with other titles."""
    salt = hashlib.sha256(curves.title.encode()).hexdigest()[:8]
    style: dict[Any, Any] = {
        "svg.fonttype": "none",
        "svg.hashsalt": salt,
        "font.family": "sans-serif",
        "font.size": FONT,
    }
    with mpl.rc_context(style):
        figure = Figure(figsize=SIZE, layout="constrained")
        _draw(figure.subplots(), curves)
        written = io.StringIO()
        # without metadata: a date would differ from run to run
        figure.savefig(
            written,
            format="svg",
            metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")),
            transparent=True,
        )
    return _for_a_page(written.getvalue(), salt)


def _draw(axes: Axes, curves: Curves) -> None:
    emphasised, others = iter(EMPHASISED * len(curves.lines)), iter(OTHERS * len(curves.lines))
    for name, line in curves.lines.items():
        points = sorted(line, key=lambda point: point.x)
        x, y, spread = [p.x for p in points], [p.y for p in points], [p.spread or 0 for p in points]
        name = name.replace("$", r"\$")  # matplotlib sets formulas between two of them
        label = f"\u200b{name}" if name.startswith("_") else name  # matplotlib hides such names
        if name == LEVEL:
            axes.plot(x, y, "--", color="#555555", linewidth=1.3, label=label)
        elif name.startswith("BCM"):
            style = {"color": next(emphasised), "linewidth": 3, "markersize": 8, "zorder": 5}
            axes.errorbar(x, y, spread, fmt="o-", capsize=4, label=label, **style)
        else:
            style = {"color": KNOWN.get(name) or next(others), "linewidth": 1.5, "markersize": 4.5}
            axes.errorbar(x, y, spread, fmt="s-", capsize=3, label=label, **style)
    axes.set(xlabel=curves.x_label, ylabel=curves.y_label)
    if curves.log_x:
        _logarithmic(axes, "x")
    if curves.log_y:
        _logarithmic(axes, "y")
    axes.grid(color="#dddddd", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    if curves.lines:
        axes.legend(frameon=False, fontsize=FONT - 1)


def _logarithmic(axes: Axes, which: str) -> None:
    """Ticks at 1, 2, 5, 10, … over less than three decades, else at powers of ten, all in plain numbers."""
    axes.set(**{f"{which}scale": "log"})
    axis = axes.xaxis if which == "x" else axes.yaxis
    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=TICKS if high / low < 1000 else (1,), numticks=20))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())
    axis.set_minor_locator(NullLocator())


def _for_a_page(text: str, salt: str) -> str:
    """The element alone, as wide as its column, under ids of its own."""
    text = text[text.index("<svg") :].strip()
    text = re.sub(r'\bid="', f'id="{salt}-', text)
    text = re.sub(r'(xlink:href="|url\()#', rf"\g<1>#{salt}-", text)
    head, rest = text.split(">", 1)
    return re.sub(r' (width|height)="[^"]*"', "", head) + ' role="img">' + rest
