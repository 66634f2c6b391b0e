"""Temporary files and folders of this package, in $TMPDIR or else in /tmp.

If none can be created, every command reports the same clear error.
"""

from __future__ import annotations

import errno
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from ...errors import OutputError

LEAST = 1 << 20  # bytes that must be free; with less, libraries fail later and with unclear messages
PYTHON_SAYS = "No usable temporary directory"  # Python's message, for example when torch is imported
TEMPORARY_FIX = "free some space, or set TMPDIR to a folder of your own"
NO_TEMPORARY = f"temporary files cannot be written to any of the usual folders; {TEMPORARY_FIX}"


def temporary_directory() -> Path:
    """Return the folder for temporary files. Raises OutputError if none can be written or it is full."""
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
    """Yield an empty folder, which is removed with its content at the end.

    Raises OutputError, also if the disk fills up in the block.
    """
    place = temporary_directory()
    try:
        with tempfile.TemporaryDirectory(prefix="bcm-edge-", ignore_cleanup_errors=True) as folder:
            yield Path(folder)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise _full(place) from error


def temporary_text() -> IO[str]:
    """Return an empty text file without a name, for writing and reading. Raises OutputError."""
    place = temporary_directory()
    try:
        return tempfile.TemporaryFile("w+")
    except OSError as error:
        raise OutputError(
            f"{place}: temporary files cannot be written ({error.strerror}); {TEMPORARY_FIX}"
        ) from error


def _full(place: Path) -> OutputError:
    return OutputError(f"{place}: no space for temporary files; {TEMPORARY_FIX}")
