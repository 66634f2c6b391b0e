"""Check input files, and write outputs completely or not at all.

An output is written under a temporary name beside its target, and then renamed to the target's name.
"""

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
from ..wording import argument

_MOUNTS = Path("/proc/self/mountinfo")

# Bytes. In temporary names, a longer name of an output is replaced by a hash. Otherwise the temporary name
# could exceed the limit of the file system although the name of the output does not.
_LONGEST_REPEATED = 60


def is_folder(path: Path) -> bool:
    """Return whether a path is a folder; False if it is not a valid file name."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def is_lfs_pointer(head: bytes) -> bool:
    """Return whether the first bytes of a file are those of a Git LFS pointer."""
    return head.startswith(b"version https://git-lfs")


def is_html(head: bytes) -> bool:
    """Return whether the first bytes of a file are those of a web page.

    A download often ends as a web page if one has to log in first.
    """
    return head.lstrip().lower().startswith((b"<!doctype html", b"<html"))


def check_regular(path: Path) -> None:
    """Raise ImageError unless an input is a regular file that can be opened.

    Reading from a pipe or a device could block forever.
    """
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        raise ImageError(f"{path}: cannot be read ({_reason(error)})") from error
    if stat.S_ISDIR(mode):
        raise ImageError(f"{path}: is a folder, not a file")
    if not stat.S_ISREG(mode):
        raise ImageError(f"{path}: is a pipe, a device or a socket; give a file")
    if not os.access(path, os.R_OK):
        raise ImageError(f"{path}: cannot be read (Permission denied)")


def check_free(target: Path, force: bool, marker: str | None = None) -> None:
    """Raise OutputError if `replacing` could not write an output here, as far as this can be known before.

    Call it before a long computation. With `force`, an existing file may be replaced; an existing folder
    may be replaced only if it is empty or contains `marker`, a file name that identifies folders written by
    this package. To test names, permissions and free inodes, an empty file is created beside the target and
    removed.
    """
    try:
        place = _place(target)
        if os.path.lexists(place):
            _check_replaceable(target, place, force, marker)
        _check_writable(target, place)
    except (OSError, ValueError) as error:
        raise OutputError(f"{target}: cannot be written ({_reason(error)})") from error


@contextmanager
def replacing(target: Path, force: bool, marker: str | None = None) -> Iterator[Path]:
    """Yield a path at which the block creates a file or a folder. It then replaces the target.

    If the block fails, on a full disk, or if the process is killed, the target stays as it was. If the
    target is a link, the file or folder that it leads to is replaced, and the link stays. Raises OutputError
    if the target exists and may not be replaced (see `check_free`), or if it cannot be written.

    There is one exception: on a file system that cannot exchange two folders, the old folder is moved to
    .NAME.replaced-MACHINE-PID before the new one is moved into place. If the process is killed between the
    two, the target does not exist.
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
    """Yield an empty folder beside `place`, so on the same file system. It is removed at the end."""
    prefix = _prefix(place, "amending")
    _sweep(place.parent, prefix)
    folder = place.with_name(f"{prefix}{os.getpid()}")
    folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        _remove(folder)


def sweep(folder: Path) -> None:
    """Remove everything that killed processes left behind in a folder while they wrote outputs.

    Only call it if no other process writes to the folder: it removes the unfinished outputs of all
    processes and machines.
    """
    for leftover in folder.glob(".*.partial-*"):
        _remove(leftover)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a small file so that readers see the old content or the new content, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    partial.write_bytes(content.encode() if isinstance(content, str) else content)
    partial.replace(path)


def _reason(error: OSError | ValueError) -> object:
    return getattr(error, "strerror", None) or error


def _place(target: Path) -> Path:
    """Return the path of an output with links resolved. Raises OutputError for a link to a missing folder."""
    place = Path(os.path.realpath(target))
    if os.path.lexists(target) and not os.path.lexists(place.parent):
        raise OutputError(f"{target} is a link to {place}, and that folder does not exist")
    return place


def _check_replaceable(target: Path, place: Path, force: bool, marker: str | None) -> None:
    """Raise OutputError unless an output may replace the existing target, and can."""
    mode = target.stat().st_mode
    forced = argument("force=True", "--force")
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise OutputError(
            f"{target} is a device, a pipe or a socket; results are written to a file or a folder"
        )
    if stat.S_ISDIR(mode) and any(target.iterdir()) and not (marker and (target / marker).exists()):
        raise OutputError(
            f"{target} is a folder with other files in it, which {forced} does not replace; "
            "choose another name"
        )
    if not force:
        raise OutputError(f"{target} exists already; {forced} replaces it")
    if _is_mounted(place):
        raise OutputError(f"{target} is a mount point, which cannot be replaced; choose a name inside it")
    if not _may_rename(place):
        raise OutputError(
            f"{target} belongs to another user, and {place.parent} lets only that user replace it; "
            "choose another name"
        )


def _may_rename(place: Path) -> bool:
    """Return False if a folder such as /tmp (sticky bit) reserves an entry for another user."""
    parent = place.parent.stat()
    if not parent.st_mode & stat.S_ISVTX:
        return True
    return os.geteuid() in (0, parent.st_uid, place.lstat().st_uid)


def _is_mounted(place: Path) -> bool:
    """Return whether a file system is mounted on a folder or file, like the volumes of a container."""
    try:
        points = [line.split()[4] for line in _MOUNTS.read_bytes().splitlines()]
    except (OSError, IndexError):  # not on Linux
        return os.path.ismount(place)
    return any(point.decode("unicode_escape").encode("latin-1") == os.fsencode(place) for point in points)


def _check_writable(target: Path, place: Path) -> None:
    """Raise OSError or OutputError unless a file can be created in the nearest existing parent folder."""
    base = next(folder for folder in place.parents if os.path.lexists(folder))
    if not base.is_dir():
        raise OutputError(f"{target}: cannot be written ({base} is not a folder)")
    limit = os.pathconf(base, "PC_NAME_MAX")
    for name in place.relative_to(base).parts:
        length = len(os.fsencode(name))
        if 0 < limit < length:
            raise OutputError(
                f"{target}: cannot be written "
                f"(file name too long: {length} bytes, the limit of this file system is {limit})"
            )
    temporary_name = f"{_prefix(place, 'partial')}{os.getpid()}"
    with contextlib.suppress(FileNotFoundError):
        os.lstat(place.with_name(temporary_name))  # raises OSError if the whole path is too long
    probe = base / temporary_name
    if os.path.lexists(probe):  # another thread's, or left by a killed process that had the same number
        return
    os.close(os.open(probe, os.O_CREAT | os.O_WRONLY | os.O_NOFOLLOW, 0o600))
    probe.unlink(missing_ok=True)


def _prefix(place: Path, purpose: str) -> str:
    """Return the start of the temporary names of an output on this machine. The process number follows."""
    name = os.fsencode(place.name)
    stem = place.name if len(name) <= _LONGEST_REPEATED else hashlib.sha256(name).hexdigest()[:16]
    return f".{stem}.{purpose}-{platform.node()}-"


def _sweep(folder: Path, prefix: str) -> None:
    """Remove what this process, or processes of this machine that have ended, left of the same output."""
    for leftover in folder.iterdir():
        number = leftover.name.removeprefix(prefix)
        if not leftover.name.startswith(prefix) or not number.isdigit():
            continue
        if int(number) == os.getpid() or not _runs(int(number)):
            _remove(leftover)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it runs, as another user
        return True
    return True


def _remove(path: Path) -> None:
    """Remove a file or folder if possible. Errors are ignored: they must not hide the error of the output."""
    with contextlib.suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()


def _exchange(new: Path, old: Path) -> None:
    """Replace the folder `old` by the folder `new`, if possible in one step.

    rename() cannot replace a folder that is not empty, so Linux's renameat2() swaps the two. On a file system
    without it, two renames are needed.
    """
    AT_FDCWD, RENAME_EXCHANGE = -100, 2
    libc = ctypes.CDLL(None, use_errno=True)
    if hasattr(libc, "renameat2"):
        status = libc.renameat2(AT_FDCWD, os.fsencode(new), AT_FDCWD, os.fsencode(old), RENAME_EXCHANGE)
        if status == 0:
            return
    aside = old.with_name(f"{_prefix(old, 'replaced')}{os.getpid()}")
    old.rename(aside)
    try:
        new.rename(old)
    except OSError:
        aside.rename(old)
        raise
    shutil.rmtree(aside, ignore_errors=True)
