"""Standard streams that are closed, full, or not UTF-8.

No traceback is printed for them, and a result that cannot be printed is an error.
"""

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

CLOSED_PIPE = 141  # 128 + SIGPIPE: the exit code of `seq 100000` in `seq 100000 | head`
_SPELLED = "bcm-edge-spelled"  # name of the error handler below

# Character → how it is written where the encoding of a stream does not contain it.
_ASCII = {
    "✓": "ok", "✗": "x", "×": "x", "·": "*", "…": "...", "–": "-", "—": "-", "─": "-", "→": "->",
    "σ": "sigma", "Δ": "delta", "±": "+-", "≤": "<=", "≥": ">=", "μ": "u",
}  # fmt: skip


def prepare_streams() -> None:
    """Make the three standard streams of this process usable, whatever they are.

    A closed stream is opened on /dev/null. Otherwise the next file that is opened would get its
    descriptor, and what libraries print would be written into that file.

    Results that cannot be printed raise OutputError. Messages that cannot be printed are dropped.
    Characters that the encoding of a stream does not contain are written in ASCII. Paths that are not
    UTF-8 keep their bytes.
    """
    # Standard output is opened for reading only, so writing to it remains an error.
    accesses = (os.O_RDONLY, os.O_RDONLY, os.O_WRONLY)
    for number, access in enumerate(accesses):
        try:
            os.fstat(number)
        except OSError:
            descriptor = os.open(os.devnull, access)  # takes the lowest free number, which is `number`
            os.set_inheritable(descriptor, True)
    codecs.register_error(_SPELLED, _spelled)
    sys.stdin = sys.stdin or io.TextIOWrapper(io.BufferedReader(io.FileIO(0, closefd=False)))
    sys.stdout = _Results(_buffer(sys.stdout, 1), _encoding(sys.stdout), _SPELLED)
    sys.stderr = _Messages(_buffer(sys.stderr, 2), _encoding(sys.stderr), _SPELLED, line_buffering=True)


def _buffer(stream: TextIO | None, number: int) -> BinaryIO:
    return stream.buffer if stream else io.BufferedWriter(io.FileIO(number, "w", closefd=False))


def _encoding(stream: TextIO | None) -> str:
    return stream.encoding if stream else "utf-8"


class _Results(io.TextIOWrapper):
    """Standard output, which ends the command if a result cannot be written."""

    def write(self, text: str, /) -> int:
        """Write a text. Raises OutputError."""
        try:
            return super().write(text)
        except OSError as error:
            _lost(error)

    def flush(self) -> None:
        """Write what is in the buffer. Raises OutputError."""
        try:
            super().flush()
        except OSError as error:
            _lost(error)


class _Messages(io.TextIOWrapper):
    """Standard error, which drops messages that cannot be written, so that the command continues."""

    def write(self, text: str, /) -> int:
        """Write a text, or drop it if that fails."""
        with contextlib.suppress(OSError):
            return super().write(text)
        return len(text)

    def flush(self) -> None:
        """Write what is in the buffer, or drop it if that fails."""
        with contextlib.suppress(OSError):
            super().flush()


def _lost(error: OSError) -> NoReturn:
    """End the command because its result cannot be printed; silently if the reader (`head`) has ended."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)  # takes what is still in the buffer
    os.close(null)
    if error.errno == errno.EPIPE:
        raise click.exceptions.Exit(CLOSED_PIPE) from error
    reason = "it is closed" if error.errno == errno.EBADF else error.strerror
    raise OutputError(
        f"standard output: cannot be written ({reason}); redirect it to a file on a disk with free space"
    ) from error


def _spelled(error: UnicodeError) -> tuple[str | bytes, int]:
    """Return what replaces the next character that cannot be encoded, and where to go on.

    A byte of a path that is not UTF-8 stays as it is; any other character is written in ASCII.
    """
    if not isinstance(error, UnicodeEncodeError):
        raise error
    character = error.object[error.start]
    if "\udc80" <= character <= "\udcff":  # Python's surrogates for bytes that are not UTF-8
        return bytes([ord(character) - 0xDC00]), error.start + 1
    decomposed = unicodedata.normalize("NFKD", character)
    plain = "".join(part for part in decomposed if part.isascii())
    return _ASCII.get(character) or plain or "?", error.start + 1
