"""Numbers and names as they stand in messages."""

from __future__ import annotations

from collections.abc import Collection
from itertools import islice
from typing import Any

LONGEST = 80  # characters of one name
MOST = 10  # names in a list


def counted(number: int, noun: str) -> str:
    """Such as "1 image" or "2 images"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def listed(names: Collection[Any], most: int = MOST) -> str:
    """The names with commas between them, on one line, shortened where they are many: "a, b, c and 7 more"."""
    more = len(names) - most
    if more <= 1:
        return ", ".join(map(printable, names))
    return f"{', '.join(map(printable, islice(names, most)))} and {more} more"


def printable(name: Any) -> str:
    """A name out of a file, which may hold anything: control characters escaped, and cut if it is long."""
    text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(name)[: LONGEST + 1])
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def first_line(error: Exception) -> str:
    """What a library's error says first; the rest is its call stack."""
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
