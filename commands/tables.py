"""Tables of plain text. In a terminal, their lines are not longer than its width."""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Iterable, Sequence
from itertools import zip_longest

from .terminal import table_width

GAP = "  "  # between two columns
LEAST = 12  # characters that a narrowed column keeps


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], texts: Collection[str] = ()) -> str:
    """Return a table. The first column and those in `texts` are aligned to the left, the others to the right.

    Where it is wider than the terminal, its widest column is narrowed: its words continue in the lines below,
    aligned to the left, and a word that is too long loses its middle.
    """
    cells = [list(columns), *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(row[index]) for row in cells) for index in range(len(columns))]
    available = table_width()
    excess = 0 if available is None else _length(widths) - available
    narrowed = widths.index(max(widths)) if excess > 0 else None
    if narrowed is not None:
        widths[narrowed] = max(LEAST, widths[narrowed] - excess)
    left = {0, narrowed, *(index for index, name in enumerate(columns) if name in texts)}
    header, *lines = ["\n".join(_lines(row, widths, narrowed, left)) for row in cells]
    rule = GAP.join("─" * width for width in widths)
    return "\n".join([header, rule, *lines])


def fits(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> bool:
    """Return whether a table of these cells is not wider than the terminal."""
    widths = [max(len(str(row[index])) for row in (columns, *rows)) for index in range(len(columns))]
    available = table_width()
    return available is None or _length(widths) <= available


def _length(widths: Sequence[int]) -> int:
    return sum(widths) + len(GAP) * (len(widths) - 1)


def _lines(
    row: Sequence[str], widths: Sequence[int], narrowed: int | None, left: Collection[int | None]
) -> list[str]:
    """Return the lines of a row: one, or as many as its narrowed cell needs.

    left: the columns that are aligned to the left.
    """
    parts = [_parts(cell, widths[index]) if index == narrowed else [cell] for index, cell in enumerate(row)]
    lines = []
    for line in zip_longest(*parts, fillvalue=""):
        aligned = [
            cell.ljust(width) if index in left else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        lines.append(GAP.join(aligned).rstrip())
    return lines


def _parts(cell: str, width: int) -> list[str]:
    """Return a cell in lines of at most `width` characters."""
    words = [_shortened(word, width) for word in cell.split(" ")]
    return textwrap.wrap(" ".join(words), width, break_long_words=False, break_on_hyphens=False) or [""]


def _shortened(word: str, width: int) -> str:
    """Return a word; if it is too long, with … in place of its middle."""
    if len(word) <= width:
        return word
    end = (width - 1) // 2
    return f"{word[: width - 1 - end]}…{word[-end:]}"
