"""The cache folder, and hashes of files that are not read again while the file stands untouched.

$BCM_EDGE_CACHE_DIR, else $XDG_CACHE_HOME/bcm-edge, else ~/.cache/bcm-edge. Everything in it can be deleted while nothing runs.
A cache that cannot be read or written costs time and nothing else.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from pathlib import Path

from ..errors import OutputError

CACHE_FIX = "set BCM_EDGE_CACHE_DIR to a folder of your own"
_SETTLED = 2.0  # seconds: a file changed more recently than this may change again within one tick of its clock


def cache_directory() -> Path:
    """Where this package keeps what it can make again: an absolute path, of a folder that need not exist.

    Raises OutputError if no such folder can be named: an unknown home folder, or a relative path in a current folder that was deleted.
    """
    chosen = os.environ.get("BCM_EDGE_CACHE_DIR")
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    try:
        if chosen:
            return Path(chosen).expanduser().absolute()
        if base.is_absolute():  # its specification has relative ones ignored
            return base / "bcm-edge"
        if Path(os.environ.get("HOME", "/")).is_absolute():
            return Path.home() / ".cache" / "bcm-edge"
        problem = f"HOME is {os.environ['HOME']!r}, which is not an absolute path"
    except RuntimeError:
        problem = f"BCM_EDGE_CACHE_DIR is {chosen!r}, and there is no such home folder" if chosen else "this user has no home folder"
    except OSError:
        problem = f"BCM_EDGE_CACHE_DIR is {chosen!r}, a relative path, and the current folder was deleted"
    raise OutputError(f"{problem}; {CACHE_FIX}")


def sha256(path: Path) -> str:
    """The file's sha256 in hex.

    Reading 1.1 GB takes longer than generating an image, so the result is remembered under the file's identity and times:
    any write to the file, a replaced file or a restored time stamp changes its ctime, and the file is read again.
    """
    stat = path.stat()
    identity = [stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]
    with contextlib.suppress(OutputError, OSError, ValueError, TypeError, KeyError):
        known = json.loads(_memo(path).read_text())
        if known["identity"] == identity:
            return str(known["sha256"])
    digest = _read_and_hash(path)
    if time.time() - stat.st_ctime > _SETTLED:
        with contextlib.suppress(OutputError, OSError):
            write_atomically(_memo(path), json.dumps({"identity": identity, "sha256": digest}))
    return digest


def _memo(path: Path) -> Path:
    """Where the hash of a file is remembered. Raises OutputError and OSError."""
    return cache_directory() / "hashes" / hashlib.sha256(os.fsencode(path.resolve())).hexdigest()


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a small file so that a reader sees the old or the new content, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    partial.write_bytes(content.encode() if isinstance(content, str) else content)
    partial.replace(path)


def _read_and_hash(path: Path) -> str:
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(1 << 20))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            digest.update(buffer[:count])
    return digest.hexdigest()
