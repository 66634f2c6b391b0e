"""Temporary files and folders of this package: in $TMPDIR, else in /tmp, and with one clear message where none can be made."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from ..errors import OutputError

TEMPORARY_FIX = "free some space, or set TMPDIR to a folder of your own"


def temporary_directory() -> Path:
    """Where temporary files are made. Raises OutputError."""
    try:
        return Path(tempfile.gettempdir())
    except FileNotFoundError as error:
        raise OutputError(f"temporary files cannot be written to any of the usual folders; {TEMPORARY_FIX}") from error


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Yield an empty folder, removed with what is in it at the end. Raises OutputError."""
    place = temporary_directory()
    try:
        folder = tempfile.TemporaryDirectory(prefix="bcm-edge-", ignore_cleanup_errors=True)
    except OSError as error:
        raise OutputError(f"{place}: temporary files cannot be written ({error.strerror}); {TEMPORARY_FIX}") from error
    with folder as name:
        yield Path(name)


@contextmanager
def temporary_text() -> Iterator[IO[str]]:
    """Yield an empty text file without a name, to be written and read. Raises OutputError."""
    place = temporary_directory()
    try:
        file = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed below)
    except OSError as error:
        raise OutputError(f"{place}: temporary files cannot be written ({error.strerror}); {TEMPORARY_FIX}") from error
    with file:
        yield file
