"""The titles and labels of the grids that commands write."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..runtime.classes import label_texts
from ..runtime.pictures.grids import Grid, pairs, rows_of
from ..runtime.pipeline import BCM

MOST_COLUMNS = 12  # of a grid with a column per class


def class_texts(bcm: BCM, labels: Any) -> list[str]:
    """Return the names of the classes of images, or their numbers; [] for a model without classes."""
    if labels is None or bcm.num_classes is None:
        return []
    return label_texts(labels, bcm.classes)


def title(schedules: Sequence[str], nfe: int, *more: str) -> str:
    """Return a line such as "invert-2, one-step: 3 NFE, strength 0.3".

    schedules: their names, or texts, in the order in which they are played.
    """
    return f"{', '.join(schedules)}: {', '.join([f'{nfe} NFE', *more])}"


def by_class(images: np.ndarray, classes: Sequence[str], seeds: Sequence[int], line: str) -> Grid:
    """Return a grid of images [N, C, H, W] with their classes, and the seeds of each row, if any.

    classes: the name of the class of each image; empty for a model without classes. They label the columns if
    they repeat in order, and the images otherwise. A single class is named in the title, `line`.
    """
    period = _period(classes)
    if period == 1:
        line = f"{line}, class {classes[0]}"
    columns = None
    if 1 < period <= MOST_COLUMNS:
        columns = period * max(1, round(len(images) ** 0.5 / period))
    rows = rows_of(images, columns)
    headings = classes[: len(rows[0])] if columns else ()
    captions = rows_of_texts(classes, len(rows[0])) if period > MOST_COLUMNS else ()
    return Grid(rows, line, _seeds(seeds, len(rows[0])), headings, captions)


def pairs_grid(
    before: np.ndarray, after: np.ndarray, texts: Sequence[str], line: str, columns: int | None = None
) -> Grid:
    """Return a grid of inputs above their outputs, [N, C, H, W] each.

    texts: one per output, or none. columns: by default, the grid is about square.
    """
    columns = columns or min(len(after), int(np.ceil(np.sqrt(2 * len(after)))))
    rows = pairs(before, after, columns)
    below = [captions for row in rows_of_texts(texts, columns) for captions in ((), row)]
    return Grid(rows, line, ["input", "output"] * (len(rows) // 2), captions=below, group=2)


def transitions(starts: Sequence[str], ends: Sequence[str]) -> list[str]:
    """Return the texts "a to b" of pairs of classes."""
    return [f"{start} to {end}" for start, end in zip(starts, ends, strict=True)]


def rows_of_texts(texts: Sequence[str], columns: int) -> list[Sequence[str]]:
    """Return one sequence of texts per row of a grid."""
    return [texts[start : start + columns] for start in range(0, len(texts), columns)]


def _period(classes: Sequence[str]) -> int:
    """Return the smallest number after which classes repeat in order, 0 without classes.

    Numbers above MOST_COLUMNS are not tried: then, it is the number of images.
    """
    lengths = range(1, min(len(classes), MOST_COLUMNS + 1))
    repeats = (length for length in lengths if list(classes[length:]) == list(classes[:-length]))
    return next(repeats, len(classes))


def _seeds(seeds: Sequence[int], columns: int) -> list[str]:
    """Return the label of each row: its seeds, if they follow each other; [] without seeds."""
    if not seeds or list(seeds) != list(range(seeds[0], seeds[0] + len(seeds))):
        return []
    rows = [seeds[start : start + columns] for start in range(0, len(seeds), columns)]
    return [f"seed {row[0]}" if len(row) == 1 else f"seeds {row[0]}-{row[-1]}" for row in rows]
