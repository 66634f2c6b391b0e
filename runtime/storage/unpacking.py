"""Unpack packed bundles: to a folder of the user, or to a folder of the cache, from which they are played.

    CACHE/bundles/KEY/    the files of a packed bundle; KEY is the start of the sha256 of the packed file

Backends open files, and not every library can read a part of a file: OpenVINO and TensorRT cannot. A packed
bundle is therefore unpacked once. Its copy is checked at every start, as every bundle is. If the cache cannot
be written, the copy is in a temporary folder, which is removed when the process ends.
"""

from __future__ import annotations

import tempfile
import threading
from pathlib import Path

from ...errors import BundleError, OutputError
from ..log import log, timed
from ..machine.cache_folder import cache_directory
from ..machine.temporary import temporary_directory
from .files import replacing
from .hashes import sha256
from .manifest import MANIFEST
from .packed import extract, read_packed

_KEY_LENGTH = 32  # hexadecimal digits
_lock = threading.RLock()
_temporary: dict[str, tempfile.TemporaryDirectory[str]] = {}  # key → folder of this process


def unpack(path: Path, target: Path, force: bool) -> None:
    """Write the files of a packed bundle to a new folder, completely or not at all.

    force: whether an existing bundle at `target` is replaced. Raises BundleError if the packed bundle is
    damaged, OutputError if the folder cannot be written.
    """
    if path.is_dir():
        raise BundleError(
            f"{path} is a folder; give a packed bundle, which bcm-edge pack BUNDLE -o FILE makes"
        )
    text, manifest, members = read_packed(path)
    with replacing(target, force, marker=MANIFEST) as folder:
        folder.mkdir()
        (folder / MANIFEST).write_bytes(text)
        extract(path, manifest.files, members, folder)


def unpacked_copy(path: Path, again: bool = False) -> Path:
    """Return a folder with the files of a packed bundle. They are not checked if the copy existed already.

    again: replace an existing copy. Raises BundleError, and OutputError if no folder can be written.
    """
    if not path.is_file():
        raise BundleError(f"{path}: no such file; make one with: bcm-edge pack BUNDLE -o {path}")
    try:
        key = sha256(path)[:_KEY_LENGTH]
    except OSError as error:
        raise BundleError(f"{path}: cannot be read ({error.strerror or error})") from error
    with _lock:
        try:
            folder = cache_directory() / "bundles" / key
            if again or not (folder / MANIFEST).is_file():
                with timed(f"packed bundle: unpacking {path} to {folder}"):
                    unpack(path, folder, force=True)
        except (OSError, OutputError) as error:
            log.info("packed bundle: no copy in the cache (%s), unpacking to a temporary folder", error)
            return _temporary_copy(path, key)
    return folder


def _temporary_copy(path: Path, key: str) -> Path:
    """Return a copy in a folder that is removed when this process ends. Raises OutputError."""
    if key not in _temporary:
        folder = tempfile.TemporaryDirectory(
            prefix="bcm-edge-", dir=temporary_directory(), ignore_cleanup_errors=True
        )
        unpack(path, Path(folder.name) / "bundle", force=False)
        _temporary[key] = folder
    return Path(_temporary[key].name) / "bundle"
