"""The cache folder, and hashes of files that are not read again while the file stands untouched.

$BCM_EDGE_CACHE_DIR, else $XDG_CACHE_HOME/bcm-edge, else ~/.cache/bcm-edge. Everything in it can be deleted while nothing runs.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from pathlib import Path

_SETTLED = 2.0  # seconds: a file changed more recently than this may change again within one tick of its clock


def cache_directory() -> Path:
    """Where this package keeps what it can make again."""
    if chosen := os.environ.get("BCM_EDGE_CACHE_DIR"):
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "bcm-edge"


def sha256(path: Path) -> str:
    """The file's sha256 in hex.

    Reading 1.1 GB takes longer than generating an image, so the result is remembered under the file's identity and times:
    any write to the file, a replaced file or a restored time stamp changes its ctime, and the file is read again.
    """
    stat = path.stat()
    identity = [stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]
    memo = cache_directory() / "hashes" / hashlib.sha256(os.fsencode(path.resolve())).hexdigest()
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        known = json.loads(memo.read_text())
        if known["identity"] == identity:
            return str(known["sha256"])
    digest = _read_and_hash(path)
    if time.time() - stat.st_ctime > _SETTLED:
        with contextlib.suppress(OSError):  # a cache that cannot be written costs time, nothing else
            write_atomically(memo, json.dumps({"identity": identity, "sha256": digest}))
    return digest


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
