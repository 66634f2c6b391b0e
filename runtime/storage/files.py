"""Inputs that are files, and outputs that are whole or absent: written under a temporary name, then renamed onto the target."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import platform
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ...errors import ImageError, OutputError

_MOUNTS = Path("/proc/self/mountinfo")
_REPEATED = 60  # bytes: a longer name of an output stands in temporary names as a hash, so that they are not too long where it is not


def is_folder(path: Path) -> bool:
    """Whether there is a folder of this name; False, too, for a name that no file system takes."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def is_lfs_pointer(head: bytes) -> bool:
    """Whether these first bytes of a file say that Git LFS left a pointer in its place."""
    return head.startswith(b"version https://git-lfs")


def is_html(head: bytes) -> bool:
    """Whether these first bytes of a file are those of a web page, as a download leaves where one has to log in."""
    return head.lstrip().lower().startswith((b"<!doctype html", b"<html"))


def check_regular(path: Path) -> None:
    """Raise ImageError unless an input is a file that can be opened. A pipe or a device could be waited for without end."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        raise ImageError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from error
    if stat.S_ISDIR(mode):
        raise ImageError(f"{path}: is a folder, not a file")
    if not stat.S_ISREG(mode):
        raise ImageError(f"{path}: is a pipe, a device or a socket; give a file")
    if not os.access(path, os.R_OK):
        raise ImageError(f"{path}: cannot be read (Permission denied)")


def check_free(target: Path, force: bool, marker: str | None = None) -> None:
    """Raise OutputError if `replacing` could not put an output here, as far as that can be known before there is one.

    Call it before the work begins. With `force` a file is replaced, and a folder only if it is empty or holds `marker`, the file that
    tells a folder this package wrote from one of the user's own. Names, permissions and free inodes are tested by a file that is created
    beside the target and removed.
    """
    try:
        place = _place(target)
        if os.path.lexists(place):
            _check_replaceable(target, place, force, marker)
        _check_writable(target, place)
    except (OSError, ValueError) as error:
        raise OutputError(
            f"{target}: cannot be written ({getattr(error, 'strerror', None) or error})"
        ) from error


@contextmanager
def replacing(target: Path, force: bool, marker: str | None = None) -> Iterator[Path]:
    """Yield a path to create (a file or a directory); it takes the target's place when the block ends without an error.

    Where the target is a link, what it leads to is replaced and the link stays. Raises OutputError if the target exists and may not be
    replaced (see `check_free`), or if it cannot be written. However the block ends, by an error, a full disk or a kill, the old target
    is intact or the new one is there whole. (Where the file system cannot exchange two folders, a kill in the instant between two
    renames leaves the old one as .NAME.replaced-MACHINE-PID.)
    """
    check_free(target, force, marker)
    place = _place(target)
    prefix = _prefix(place, "partial")
    partial = place.with_name(f"{prefix}{os.getpid()}")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        _sweep(place.parent, prefix)
        yield partial
        if place.is_dir():
            _exchange(partial, place)
        else:
            partial.replace(place)
    except OSError as error:
        raise OutputError(f"{target}: cannot be written ({error.strerror or error})") from error
    finally:
        _remove(partial)


@contextmanager
def folder_beside(place: Path) -> Iterator[Path]:
    """Yield an empty folder beside a place, on the same file system, for parts of what will be put there; removed at the end."""
    prefix = _prefix(place, "amending")
    _sweep(place.parent, prefix)
    folder = place.with_name(f"{prefix}{os.getpid()}")
    folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        _remove(folder)


def sweep(folder: Path) -> None:
    """Remove what `replacing` left unfinished in a folder, of any output, process and machine: for whom nobody else writes there."""
    for leftover in folder.glob(".*.partial-*"):
        _remove(leftover)


def _place(target: Path) -> Path:
    """Where an output will lie: the target, or what it links to. Raises OutputError for a link into a folder that is not there."""
    place = Path(os.path.realpath(target))
    if os.path.lexists(target) and not os.path.lexists(place.parent):
        raise OutputError(f"{target} is a link to {place}, and that folder does not exist")
    return place


def _check_replaceable(target: Path, place: Path, force: bool, marker: str | None) -> None:
    """Raise OutputError unless an output may take the place of what is there, and can."""
    mode = target.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise OutputError(
            f"{target} is a device, a pipe or a socket; results are written to a file or a folder"
        )
    if stat.S_ISDIR(mode) and any(target.iterdir()) and not (marker and (target / marker).exists()):
        raise OutputError(
            f"{target} is a folder with other files in it, which --force does not replace; choose another name"
        )
    if not force:
        raise OutputError(f"{target} exists already; --force replaces it")
    if _is_mounted(place):
        raise OutputError(f"{target} is a mount point, which cannot be replaced; choose a name inside it")
    above = place.parent.stat()
    if above.st_mode & stat.S_ISVTX and os.geteuid() not in (0, above.st_uid, place.lstat().st_uid):
        raise OutputError(
            f"{target} belongs to another user, and {place.parent} lets only that user replace it; choose another name"
        )


def _is_mounted(place: Path) -> bool:
    """Whether a file system is mounted on a folder or file, as a container's volumes are."""
    try:
        points = [line.split()[4] for line in _MOUNTS.read_bytes().splitlines()]
    except (OSError, IndexError):  # no Linux
        return os.path.ismount(place)
    return any(point.decode("unicode_escape").encode("latin-1") == os.fsencode(place) for point in points)


def _check_writable(target: Path, place: Path) -> None:
    """Raise OSError or OutputError unless a new file can be made in the nearest folder above the place that exists."""
    base = next(folder for folder in place.parents if os.path.lexists(folder))
    if not base.is_dir():
        raise OutputError(f"{target}: cannot be written ({base} is not a folder)")
    most = os.pathconf(base, "PC_NAME_MAX")
    for name in place.relative_to(base).parts:
        if 0 < most < (length := len(os.fsencode(name))):
            raise OutputError(
                f"{target}: cannot be written (a name of {length} bytes; this file system takes up to {most})"
            )
    with contextlib.suppress(FileNotFoundError):
        os.lstat(
            place.with_name(f"{_prefix(place, 'partial')}{os.getpid()}")
        )  # raises OSError for a path that is too long as a whole
    probe = base / f"{_prefix(place, 'partial')}{os.getpid()}"
    if not os.path.lexists(probe):  # of another thread, or of a killed process that had our number
        os.close(os.open(probe, os.O_CREAT | os.O_WRONLY | os.O_NOFOLLOW, 0o600))
        probe.unlink(missing_ok=True)


def _prefix(place: Path, purpose: str) -> str:
    """How temporary names for an output begin on this machine; a process adds its number."""
    name = os.fsencode(place.name)
    stem = place.name if len(name) <= _REPEATED else hashlib.sha256(name).hexdigest()[:16]
    return f".{stem}.{purpose}-{platform.node()}-"


def _sweep(folder: Path, prefix: str) -> None:
    """Remove what killed processes of this machine left of the same output."""
    for leftover in folder.iterdir():
        number = leftover.name.removeprefix(prefix)
        if (
            leftover.name.startswith(prefix)
            and number.isdigit()
            and (int(number) == os.getpid() or not _runs(int(number)))
        ):
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
    with contextlib.suppress(OSError):  # what mattered has been said, or is about to be
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()


def _exchange(new: Path, old: Path) -> None:
    """Swap two directories in one step, as rename() cannot replace a directory that is not empty."""
    AT_FDCWD, RENAME_EXCHANGE = -100, 2
    libc = ctypes.CDLL(None, use_errno=True)
    if (
        hasattr(libc, "renameat2")
        and libc.renameat2(AT_FDCWD, os.fsencode(new), AT_FDCWD, os.fsencode(old), RENAME_EXCHANGE) == 0
    ):
        return
    aside = old.with_name(
        f"{_prefix(old, 'replaced')}{os.getpid()}"
    )  # a file system without exchange: two renames
    old.rename(aside)
    try:
        new.rename(old)
    except OSError:
        aside.rename(old)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a small file so that a reader sees the old or the new content, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    partial.write_bytes(content.encode() if isinstance(content, str) else content)
    partial.replace(path)
