"""The contents of a report as plain values: tables, pictures and curves. page.py renders them as HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

NOTHING = "–"  # a cell of a table without a value


@dataclass(frozen=True)
class Table:
    """A table. Numbers are shown with all their digits, so round them first."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[object]]
    # one or two sentences below the table
    note: str = ""


@dataclass(frozen=True)
class Gallery:
    """A gallery: pictures in rows of `columns`."""

    title: str
    # float32 [N, C, H, W] in [-1, 1], C = 1 or 3
    images: np.ndarray
    columns: int
    # the label of each row; empty for none
    rows: Sequence[str] = ()
    note: str = ""
    # the label of each column, above the first row; empty for none
    headings: Sequence[str] = ()


@dataclass(frozen=True)
class Point:
    """One measured point of a curve."""

    x: float
    y: float
    # the standard error over repetitions; None for a single measurement
    spread: float | None = None


@dataclass(frozen=True)
class Curves:
    """A plot with one or more lines of points."""

    title: str
    x_label: str
    y_label: str
    # name → points
    lines: Mapping[str, Sequence[Point]]
    log_x: bool = False
    log_y: bool = False
    note: str = ""


Exhibit = Table | Gallery | Curves
