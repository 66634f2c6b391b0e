"""What a report shows: tables, pictures and curves, as plain values. Those who measure make them; report.py puts them on a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Table:
    """Rows of cells: numbers are shown as they are given, so round them first; note: a sentence or two below."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[object]]
    note: str = ""


@dataclass(frozen=True)
class Gallery:
    """images: float32 [N, C, H, W] in [-1, 1], C = 1 or 3, laid out in rows of `columns`; rows: what each row shows, or nothing."""

    title: str
    images: np.ndarray
    columns: int
    rows: Sequence[str] = ()
    note: str = ""


@dataclass(frozen=True)
class Point:
    """One measurement; spread: standard error over repetitions, where there were some."""

    x: float
    y: float
    spread: float | None = None


@dataclass(frozen=True)
class Curves:
    """Lines of points by name, over an axis that is logarithmic where said so."""

    title: str
    x_label: str
    y_label: str
    lines: Mapping[str, Sequence[Point]]
    log_x: bool = False
    log_y: bool = False
    note: str = ""


Exhibit = Table | Gallery | Curves
