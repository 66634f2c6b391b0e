"""Read and write npz and npy files. Every header is checked before an array is allocated."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from ...errors import ImageError
from ..machine.resources import check_memory
from ..wording import argument
from .files import check_regular, is_html, is_lfs_pointer, replacing

Arrays = Mapping[str, np.ndarray | None]  # arrays of an npz file by name; None is not written
Shapes = dict[str, tuple[int, ...]]

SUFFIXES = (".npz", ".npy")
UNNAMED = "arr_0"  # the name that numpy.savez gives to an array without a name


def is_array_file(path: Path) -> bool:
    """Return whether a file name ends in .npz or .npy, in upper or lower case."""
    return path.suffix.lower() in SUFFIXES


def read_arrays(path: Path, name: str) -> dict[str, np.ndarray]:
    """Return all arrays of an npz file by name, or the array of an npy file as `name`.

    The only array of an npz file is also called `name` if it was saved without a name. Pickled objects
    are refused. Raises ImageError for a file that cannot be read, InputError for arrays that do not fit
    into memory.
    """
    shapes = array_shapes(path, name)
    try:
        if path.suffix.lower() == ".npy":
            return {name: np.load(path, allow_pickle=False)}
        with np.load(path, allow_pickle=False) as archive:
            arrays = {}
            for array_name in shapes:
                stored_name = array_name if array_name in archive.files else UNNAMED
                arrays[array_name] = archive[stored_name]
            return arrays
    except MemoryError:
        raise
    except Exception as error:  # numpy and zipfile raise many kinds of errors for damaged files
        raise _unreadable(path, error) from error


def array_shapes(path: Path, name: str) -> Shapes:
    """Return the shapes of the arrays that `read_arrays` would return. Only headers are read.

    Raises the same errors as `read_arrays`.
    """
    check_regular(path)
    try:
        if path.suffix.lower() == ".npy":
            shapes, size = _npy_shapes(path, name)
        else:
            shapes, size = _npz_shapes(path, name)
    except MemoryError:
        raise
    except Exception as error:  # numpy and zipfile raise many kinds of errors for damaged files
        raise _unreadable(path, error) from error
    advice = argument("split the file", "split the file, or use bcm-edge map on smaller files")
    check_memory(size, f"{path}: its arrays", advice)
    return shapes


def required(arrays: Mapping[str, np.ndarray], name: str, path: Path, advice: str = "") -> np.ndarray:
    """Return the array `name`. Raises ImageError, which lists the arrays of the file, if it is missing."""
    if name not in arrays:
        raise ImageError(f"{path}: has no array `{name}` (it has {', '.join(arrays) or 'no arrays'}){advice}")
    return arrays[name]


def save_npz(path: Path, arrays: Arrays, force: bool = False) -> None:
    """Write the arrays that are not None to an npz file, completely or not at all."""
    with replacing(path, force) as partial, partial.open("wb") as file:
        present: dict[str, Any] = {name: array for name, array in arrays.items() if array is not None}
        np.savez(file, **present)


def _npy_shapes(path: Path, name: str) -> tuple[Shapes, int]:
    """Return the shape of the array of an npy file, by name, and the size of the file in bytes."""
    size = path.stat().st_size
    with path.open("rb") as file:
        return {name: _shape(file, size)}, size


def _npz_shapes(path: Path, name: str) -> tuple[Shapes, int]:
    """Return the shapes of the arrays of an npz file, by name, and their uncompressed size in bytes."""
    with path.open("rb") as file:
        if file.read(2) != b"PK":  # zipfile would search from the end of the file, numpy from its start
            raise zipfile.BadZipFile("it is not a zip archive")
    shapes: Shapes = {}
    size = 0
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if member.is_dir():
                continue
            shapes[member.filename.removesuffix(".npy")] = _member_shape(archive, member)
            size += member.file_size
    if list(shapes) == [UNNAMED]:
        shapes = {name: shapes[UNNAMED]}
    return shapes, size


def _member_shape(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> tuple[int, ...]:
    with archive.open(member) as file:
        try:
            return _shape(file, member.file_size)
        except ValueError as error:
            raise ValueError(f"{member.filename}: {error}") from None


def _shape(file: IO[bytes], size: int) -> tuple[int, ...]:
    """Return the shape in the header of an npy file of `size` bytes.

    Raises ValueError if the data is not as long as the header requires.
    """
    magic = file.read(6)
    if magic != b"\x93NUMPY":
        raise ValueError("not an npy array")
    version = tuple(file.read(2))
    if version == (1, 0):
        read_header = np.lib.format.read_array_header_1_0
    else:
        read_header = np.lib.format.read_array_header_2_0
    shape, _, dtype = read_header(file)
    if dtype.hasobject:
        raise ValueError(
            "contains Python objects, which are not read because they can run code; save numbers"
        )
    if min(shape, default=0) < 0:
        raise ValueError(f"its header has the shape {shape}")
    count = math.prod(shape)
    data_size = size - file.tell()
    if count * dtype.itemsize != data_size:
        raise ValueError(
            f"its header describes {count} values of {dtype.itemsize} bytes, but {data_size} bytes follow"
        )
    return shape


def _unreadable(path: Path, error: Exception) -> ImageError:
    suffix = path.suffix.lower().removeprefix(".")
    if kind := _kind(path):
        return ImageError(f"{path}: not a readable {suffix} file of arrays ({kind})")
    reason = error or type(error).__name__
    return ImageError(f"{path}: not a readable {suffix or 'npz'} file of arrays ({reason})")


def _kind(path: Path) -> str:
    """Return what a file is that cannot be read as arrays, or "" if its first bytes do not show it."""
    with path.open("rb") as file:
        head = file.read(32)
    if head.startswith(b"\x93NUMPY") and path.suffix.lower() == ".npz":
        return "it is a single array; name it .npy"
    if head.startswith(b"PK") and path.suffix.lower() == ".npy":
        return "it is an npz file; name it .npz"
    if is_lfs_pointer(head):
        return "it is a Git LFS pointer; run: git lfs pull"
    if is_html(head):
        return "it is an HTML page; download the file again"
    return "" if head else "it is empty"
