"""The text of numbers and names in messages."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

LONGEST = 80  # the largest number of characters of a name
MOST = 10  # the largest number of names in a list

_names_options = False  # whether the caller is the command line


@contextmanager
def options_in_messages() -> Iterator[None]:
    """Name options of the command line in messages of this block, in place of the arguments of Python."""
    global _names_options
    before, _names_options = _names_options, True
    try:
        yield
    finally:
        _names_options = before


def argument(in_python: str, option: str) -> str:
    """Return how the caller names an argument, for messages: `labels=` in Python, the option in a command."""
    return option if _names_options else in_python


def setting(name: str, value: str) -> str:
    """Return how the caller gives an argument a value: backend='typed' in Python, or --backend typed."""
    return argument(f"{name}={value!r}", f"--{name} {value}")


def counted(number: int, noun: str) -> str:
    """Return the number with its noun, for example "1 image" or "2 images"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def listed(names: Collection[Any], most: int = MOST) -> str:
    """Return the names in one line, separated by commas. A long list is shortened: "a, b, c and 7 more"."""
    more = len(names) - most
    if more <= 1:
        return ", ".join(map(printable, names))
    return f"{', '.join(map(printable, islice(names, most)))} and {more} more"


def printable(name: Any) -> str:
    """Return a name from a file in a form that is safe to print.

    Control characters are escaped, and the text is cut to LONGEST characters.
    """
    beginning = str(name)[: LONGEST + 1]
    text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in beginning)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def first_line(error: Exception) -> str:
    """Return the first line of a library's error. Further lines are usually its call stack."""
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
