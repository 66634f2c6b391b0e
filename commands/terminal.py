"""Texts for a terminal: verdicts in colour, and lines that are not wider than the terminal.

A text in a pipe or a file stays as it is. The environment variable NO_COLOR switches colours off, and
FORCE_COLOR on, also in a pipe (https://no-color.org, https://force-color.org).
"""

from __future__ import annotations

import os
import re
import sys
import textwrap
from typing import TextIO

import click

LEAST = 40  # columns; in a narrower terminal, lines are broken by the terminal

# Verdicts → their colours. Most patterns ask for the place in the line, so that names of files keep theirs.
_COLOURS = (
    (re.compile(r"✓|(?<=: )ok(?=$| \()|(?<=is )\S+× as fast|^reached(?=:)", re.MULTILINE), "green"),
    (re.compile(r"✗|(?<=: )FAILED(?=$| \()|NOT VERIFIED|^not reached(?=:)|^error(?=:)", re.MULTILINE), "red"),
    (re.compile(r"(?<=is )slower here|^partly reached(?=:)|\bcaution(?=: )", re.MULTILINE), "yellow"),
)
# Lines with a command to copy, and rows of a table, are not broken.
_WHOLE = re.compile(r"\b(bcm-edge|pip|sudo|python -m|docker|tritonserver) |──|\S {2,}\S")


def shown(text: str, stream: TextIO) -> str:
    """Return the text as the stream shows it: on a terminal, in lines that fit, and with colours."""
    columns = columns_of(stream)
    if columns and columns >= LEAST:
        text = "\n".join(_wrapped(line, columns) for line in text.split("\n"))
    return _coloured(text) if has_colours(stream) else text


def has_colours(stream: TextIO) -> bool:
    """Return whether texts for this stream have colours."""
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def columns_of(stream: TextIO) -> int | None:
    """Return the width of a terminal in characters; None for a file, and for an unknown width.

    The environment variable COLUMNS replaces the width of a terminal.
    """
    if not stream.isatty():
        return None
    if (text := os.environ.get("COLUMNS", "")).isdecimal() and int(text):
        return int(text)
    try:
        return os.get_terminal_size(stream.fileno()).columns or None
    except (OSError, ValueError):  # a stream without a descriptor
        return None


def table_width() -> int | None:
    """Return the width that a table has at most: that of the terminal; None if the output is no terminal."""
    return columns_of(sys.stdout) or columns_of(sys.stderr)


def _wrapped(line: str, columns: int) -> str:
    if len(line) <= columns or _WHOLE.search(line):
        return line
    indent = line[: len(line) - len(line.lstrip())]
    return "\n".join(
        textwrap.wrap(
            line, columns, subsequent_indent=f"{indent}  ", break_long_words=False, break_on_hyphens=False
        )
    )


def _coloured(text: str) -> str:
    for verdict, colour in _COLOURS:
        text = verdict.sub(lambda match, colour=colour: click.style(match[0], fg=colour), text)
    return text
