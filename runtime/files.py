"""Outputs that are whole or absent: written under a temporary name beside the target, then renamed onto it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import OutputError


def check_free(target: Path, force: bool, marker: str | None = None) -> None:
    """Raise OutputError if `replacing` would not put something in this place.

    With `force` a file is replaced, and a folder only if it is empty or holds `marker`, the file that tells a folder this
    package wrote from one of the user's own.
    """
    try:
        if not target.exists():
            return
        if not force:
            raise OutputError(f"{target} exists already; --force replaces it")
        if target.is_dir() and any(target.iterdir()) and not (marker and (target / marker).exists()):
            raise OutputError(f"{target} is a folder with other files in it, which --force does not replace; choose another name")
    except (OSError, ValueError) as error:
        raise OutputError(f"{target}: cannot be written ({getattr(error, 'strerror', None) or error})") from error


@contextmanager
def replacing(target: Path, force: bool, marker: str | None = None) -> Iterator[Path]:
    """Yield a path to create (a file or a directory); it takes the target's place when the block ends without an error.

    Raises OutputError if the target exists and may not be replaced (see `check_free`), or if it cannot be written. However the
    block ends, by an error, a full disk or a kill, the old target is intact or the new one is there whole. (Where the file system
    cannot exchange two folders, a kill in the instant between two renames leaves the old one as .NAME.replaced-PID.)
    """
    check_free(target, force, marker)
    place = target.absolute()  # "." has no name of its own
    prefix = f".{place.name}.partial-{platform.node()}-"
    partial = place.with_name(f"{prefix}{os.getpid()}")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        _sweep(place.parent, prefix)
        yield partial
        if place.is_dir() and not place.is_symlink():
            _exchange(partial, place)
        else:
            partial.replace(place)
    except OSError as error:
        raise OutputError(f"{target}: cannot be written ({error.strerror or error})") from error
    finally:
        _remove(partial)


def sweep(folder: Path) -> None:
    """Remove what `replacing` left unfinished in a folder, of any output, process and machine: for whom nobody else writes there."""
    for leftover in folder.glob(".*.partial-*"):
        _remove(leftover)


def _sweep(folder: Path, prefix: str) -> None:
    """Remove what killed processes of this machine left of the same output."""
    for leftover in folder.iterdir():
        number = leftover.name.removeprefix(prefix)
        if leftover.name.startswith(prefix) and number.isdigit() and (int(number) == os.getpid() or not _runs(int(number))):
            _remove(leftover)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's
        return True
    return True


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
    try:
        new.rename(old)
    except OSError:
        aside.rename(old)
        raise
    shutil.rmtree(aside, ignore_errors=True)
