"""Find out which shared libraries a library is linked with, and load them from Python packages.

NVIDIA's packages for pip install their libraries in folders that the system's loader does not search. A
library that this process has loaded is found by its name afterwards, wherever it is.
"""

from __future__ import annotations

import ctypes
import importlib.util
import mmap
import struct
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

# Constants of the ELF format: types of segments, and tags of the dynamic section.
_SEGMENT_LOADED, _SEGMENT_DYNAMIC = 1, 2
_TAG_NEEDED, _TAG_NAMES = 1, 5

# Python packages with shared libraries of NVIDIA, in themselves or in */lib.
_PACKAGES = ("nvidia", "tensorrt_libs")


def linked_libraries(library: Path) -> list[str]:
    """Return the names of the shared libraries that a library is linked with.

    Returns [] for a file that cannot be read, or is not a 64-bit ELF file, such as a DLL.
    """
    try:
        with library.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return _linked(content)
    except (OSError, ValueError, struct.error):  # the last two for an empty and for a damaged file
        return []


def _linked(content: mmap.mmap) -> list[str]:
    if content[:6] != b"\x7fELF\x02\x01":  # 64 bits, little-endian
        return []
    (table,) = struct.unpack_from("<Q", content, 32)
    size, count = struct.unpack_from("<HH", content, 54)
    # type, flags, offset in the file, address in memory, physical address, size in the file
    segments = [struct.unpack_from("<IIQQQQ", content, table + size * index) for index in range(count)]
    (dynamic,) = (segment for segment in segments if segment[0] == _SEGMENT_DYNAMIC)
    entries = list(struct.iter_unpack("<qQ", content[dynamic[2] : dynamic[2] + dynamic[5]]))
    (names,) = (value for tag, value in entries if tag == _TAG_NAMES)  # an address
    (loaded,) = (
        segment
        for segment in segments
        if segment[0] == _SEGMENT_LOADED and segment[3] <= names < segment[3] + segment[5]
    )
    places = [names - loaded[3] + loaded[2] + value for tag, value in entries if tag == _TAG_NEEDED]
    return [content[place : content.find(b"\0", place)].decode() for place in places]


def load_libraries(names: Iterable[str]) -> list[str]:
    """Load shared libraries by name, and return the names of those that cannot be loaded.

    Each is searched in the packages of NVIDIA, and then where the system's loader searches. The order of the
    names does not matter: one that needs another is tried again.
    """
    missing = list(names)
    folders = _folders()
    while True:
        failed = [name for name in missing if not _load(name, folders)]
        if not failed or len(failed) == len(missing):
            return failed
        missing = failed


def _load(name: str, folders: list[Path]) -> bool:
    for path in (*(str(folder / name) for folder in folders if (folder / name).is_file()), name):
        with suppress(OSError):
            ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)
            return True
    return False


def _folders() -> list[Path]:
    """Return the folders of NVIDIA's packages that may contain libraries."""
    folders = []
    for package in _PACKAGES:
        spec = importlib.util.find_spec(package)
        for place in (spec.submodule_search_locations or ()) if spec else ():
            folders += [Path(place), *sorted(Path(place).glob("*/lib"))]
    return folders
