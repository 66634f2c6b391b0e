"""Standard streams that are closed, full, or of a terminal that is not UTF-8: no traceback, and no result lost without a word."""

from __future__ import annotations

import codecs
import contextlib
import errno
import io
import os
import sys
import unicodedata
from typing import BinaryIO, NoReturn, TextIO

import click

from ..errors import OutputError

CLOSED_PIPE = 141  # 128 + SIGPIPE, with which `seq 100000 | head` ends
_SPELLED = "bcm-edge-spelled"
_ASCII = {
    "✓": "ok", "✗": "x", "×": "x", "·": "*", "…": "...", "–": "-", "—": "-", "─": "-", "→": "->", "σ": "sigma", "Δ": "delta", "±": "+-",
    "≤": "<=", "≥": ">=", "μ": "u",
}  # fmt: skip


def prepare_streams() -> None:
    """Make the three streams of this process usable, whatever they were when it began.

    A closed one would lend its number to the next file that is opened, and what a library prints would go into that file: it becomes
    /dev/null. Results that cannot be printed raise OutputError; messages that cannot be printed are dropped. Characters that the
    encoding lacks are spelled in ASCII; a path that is not UTF-8 keeps its bytes.
    """
    for number, access in enumerate(
        (os.O_RDONLY, os.O_RDONLY, os.O_WRONLY)
    ):  # writing to a closed standard output stays an error
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(
                os.open(os.devnull, access), True
            )  # takes the lowest free number, which is this one
    codecs.register_error(_SPELLED, _spelled)
    sys.stdin = sys.stdin or io.TextIOWrapper(io.BufferedReader(io.FileIO(0, closefd=False)))
    sys.stdout = _Results(_buffer(sys.stdout, 1), _encoding(sys.stdout), _SPELLED)
    sys.stderr = _Messages(_buffer(sys.stderr, 2), _encoding(sys.stderr), _SPELLED, line_buffering=True)


def _buffer(stream: TextIO | None, number: int) -> BinaryIO:
    return stream.buffer if stream else io.BufferedWriter(io.FileIO(number, "w", closefd=False))


def _encoding(stream: TextIO | None) -> str:
    return stream.encoding if stream else "utf-8"


class _Results(io.TextIOWrapper):
    """Standard output."""

    def write(self, text: str, /) -> int:
        try:
            return super().write(text)
        except OSError as error:
            _lost(error)

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            _lost(error)


class _Messages(io.TextIOWrapper):
    """Standard error: messages are worth less than the work they are about."""

    def write(self, text: str, /) -> int:
        with contextlib.suppress(OSError):
            return super().write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            super().flush()


def _lost(error: OSError) -> NoReturn:
    """End a command whose result could not be printed; without a word where the reader has gone, as `head` does."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)  # for what is still in the buffer
    os.close(null)
    if error.errno == errno.EPIPE:
        raise click.exceptions.Exit(CLOSED_PIPE) from error
    reason = "it is closed" if error.errno == errno.EBADF else error.strerror
    raise OutputError(f"standard output: cannot be written ({reason})") from error


def _spelled(error: UnicodeError) -> tuple[str | bytes, int]:
    """The next character that an encoding lacks: the byte of a path that is no text, or words in ASCII."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    character = error.object[error.start]
    if "\udc80" <= character <= "\udcff":  # how Python keeps such bytes
        return bytes([ord(character) - 0xDC00]), error.start + 1
    plain = "".join(c for c in unicodedata.normalize("NFKD", character) if c.isascii())
    return _ASCII.get(character) or plain or "?", error.start + 1
