"""The sha256 of files. A file is not read again while it is unchanged, because its hash is kept in the cache folder.

Without a cache that can be read and written, results are the same and take longer.
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

_SETTLED = (
    2.0  # seconds: a file changed more recently than this may change again within one tick of its clock
)


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


def _read_and_hash(path: Path) -> str:
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(1 << 20))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            digest.update(buffer[:count])
    return digest.hexdigest()
