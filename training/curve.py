"""The curves of a training run as a picture: losses above, learning rate below."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

SIZE = 7.2, 6.0  # inches
COLOURS = ("#0b4f9e", "#d9730d", "#2a8f8f")
VALIDATION = "validation_"


def draw_curves(columns: Mapping[str, np.ndarray]) -> Figure:
    """Return a figure of the columns of a table (see `read_table`)."""
    figure = Figure(figsize=SIZE, layout="constrained")
    losses, rate = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    if columns:
        _draw_losses(losses, columns)
        rate.plot(columns["step"], columns["learning_rate"], color="#555555")
    losses.set(ylabel="loss")
    rate.set(xlabel="step", ylabel="learning rate", ylim=(0, None))
    for axes in (losses, rate):
        axes.grid(color="#dddddd", linewidth=0.8)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def _draw_losses(axes: Axes, columns: Mapping[str, np.ndarray]) -> None:
    steps = columns["step"]
    names = [name.removeprefix(VALIDATION) for name in columns if name.startswith(VALIDATION)]
    for name, colour in zip(names, COLOURS, strict=False):
        axes.plot(steps, columns[name], color=colour, linewidth=1, label=name)
        held_out = columns[VALIDATION + name]
        measured = np.isfinite(held_out)
        if measured.any():
            label = f"{name}, held-out images"
            axes.plot(steps[measured], held_out[measured], "o--", color=colour, markersize=5, label=label)
    _mark_grids(axes, steps, columns["intervals"])
    axes.set(yscale="log")
    axes.legend(frameon=False)


def _mark_grids(axes: Axes, steps: np.ndarray, intervals: np.ndarray) -> None:
    """Mark the steps at which the noise grid becomes finer, with its new number of intervals."""
    for before, after, step in zip(intervals[:-1], intervals[1:], steps[1:], strict=True):
        if np.isfinite(after) and after != before:
            axes.axvline(step, color="#999999", linewidth=0.8, linestyle=":")
            place = {"xy": (step, 1), "xycoords": ("data", "axes fraction")}
            text = f"{after:g} intervals"
            axes.annotate(
                text, **place, xytext=(3, -3), textcoords="offset points", va="top", fontsize=8, rotation=90
            )
