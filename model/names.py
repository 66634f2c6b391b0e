"""Names out of a file, as they stand in a message."""

from __future__ import annotations

from collections.abc import Collection
from itertools import islice
from typing import Any

LONGEST = 80  # characters of one name


def listed(names: Collection[Any], most: int = 6) -> str:
    """The first names and the number of all, on one line: a file may hold anything, also control characters, as a name."""
    first = ", ".join(map(printable, islice(names, most)))
    return first if len(names) <= most else f"{first}, … ({len(names)} in all)"


def printable(name: Any) -> str:
    text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(name)[: LONGEST + 1])
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
