"""Temporary files and folders of this package: in $TMPDIR, else in /tmp, and with one clear message where none can be made."""

from __future__ import annotations

import errno
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from ...errors import OutputError

LEAST = 1 << 20  # bytes that have to be free: with less, libraries fail late and unclearly
PYTHON_SAYS = "No usable temporary directory"  # where a library makes temporary files, such as torch when it is imported
TEMPORARY_FIX = "free some space, or set TMPDIR to a folder of your own"
NO_TEMPORARY = f"temporary files cannot be written to any of the usual folders; {TEMPORARY_FIX}"


def temporary_directory() -> Path:
    """Where temporary files are made. Raises OutputError where none can be."""
    try:
        place = Path(tempfile.gettempdir())
        free = shutil.disk_usage(place).free
    except OSError as error:
        raise OutputError(NO_TEMPORARY) from error
    if free < LEAST:
        raise _full(place)
    return place


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Yield an empty folder, removed with what is in it at the end. Raises OutputError, also where it fills up in the block."""
    place = temporary_directory()
    try:
        with tempfile.TemporaryDirectory(prefix="bcm-edge-", ignore_cleanup_errors=True) as folder:
            yield Path(folder)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise _full(place) from error


def temporary_text() -> IO[str]:
    """An empty text file without a name, to be written, read and closed. Raises OutputError."""
    place = temporary_directory()
    try:
        return tempfile.TemporaryFile("w+")
    except OSError as error:
        raise OutputError(
            f"{place}: temporary files cannot be written ({error.strerror}); {TEMPORARY_FIX}"
        ) from error


def _full(place: Path) -> OutputError:
    return OutputError(f"{place}: no space for temporary files; {TEMPORARY_FIX}")
