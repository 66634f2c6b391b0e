"""Outputs that are whole or absent: written under a temporary name beside the target, then renamed onto it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import OutputError


@contextmanager
def replacing(target: Path, force: bool) -> Iterator[Path]:
    """Yield a path to create (a file or a directory); it takes the target's place when the block ends without an error.

    Raises OutputError if the target exists and `force` is false, or if it cannot be written. However the block ends,
    by an error, a full disk or a kill, the old target is intact or the new one is there whole.
    """
    if target.exists() and not force:
        raise OutputError(f"{target} exists already; --force replaces it")
    partial = target.with_name(f".{target.name}.partial-{os.getpid()}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove(partial)  # left by a killed process that had this number
        yield partial
        if target.is_dir() and not target.is_symlink():
            _exchange(partial, target)
        else:
            partial.replace(target)
    except OSError as error:
        raise OutputError(f"{target}: cannot be written ({error.strerror or error})") from error
    finally:
        _remove(partial)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):  # what mattered has been said, or is about to be
            path.unlink()


def _exchange(new: Path, old: Path) -> None:
    """Swap two directories in one step, as rename() cannot replace a directory that is not empty."""
    AT_FDCWD, RENAME_EXCHANGE = -100, 2
    libc = ctypes.CDLL(None, use_errno=True)
    if hasattr(libc, "renameat2") and libc.renameat2(AT_FDCWD, os.fsencode(new), AT_FDCWD, os.fsencode(old), RENAME_EXCHANGE) == 0:
        return
    aside = old.with_name(f".{old.name}.replaced-{os.getpid()}")  # a file system without exchange: two renames
    old.rename(aside)
    new.rename(old)
    shutil.rmtree(aside, ignore_errors=True)
