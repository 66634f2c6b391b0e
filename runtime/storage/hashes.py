"""The sha256 of files. Hashes are kept in the cache folder, so an unchanged file is read only once.

If the cache cannot be read or written, the results are the same and take longer.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from pathlib import Path

from ...errors import OutputError
from ..machine.cache_folder import cache_directory
from .files import write_atomically

# Seconds. The hash of a file that changed more recently is not kept: the file may change again within one
# tick of the file system's clock, and its times would then be the same.
_SETTLED = 2.0


def sha256(path: Path) -> str:
    """Return the sha256 of a file, in hexadecimal.

    Reading 1.1 GB takes longer than generating an image, so the result is stored with the file's device,
    inode, size and times. Any write, replacement or restored time stamp changes the ctime of a file; then
    the file is read again.
    """
    stat = path.stat()
    identity = [stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]
    with contextlib.suppress(OutputError, OSError, ValueError, TypeError, KeyError):
        entry = json.loads(_entry_file(path).read_text())
        if entry["identity"] == identity:
            return str(entry["sha256"])
    digest = _read_and_hash(path)
    if time.time() - stat.st_ctime > _SETTLED:
        with contextlib.suppress(OutputError, OSError):
            write_atomically(_entry_file(path), json.dumps({"identity": identity, "sha256": digest}))
    return digest


def _entry_file(path: Path) -> Path:
    """Return the file of the cache that stores the hash of `path`. Raises OutputError and OSError."""
    return cache_directory() / "hashes" / hashlib.sha256(os.fsencode(path.resolve())).hexdigest()


def _read_and_hash(path: Path) -> str:
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(1 << 20))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            digest.update(buffer[:count])
    return digest.hexdigest()
