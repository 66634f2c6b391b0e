"""Arrays in and out: npz and npy files, with every header checked before an array is allocated."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from ...errors import ImageError
from ..machine.resources import check_memory
from .files import check_regular, is_html, is_lfs_pointer, replacing

Arrays = Mapping[str, np.ndarray | None]  # names in an npz file; None is left out

SUFFIXES = (".npz", ".npy")
UNNAMED = "arr_0"  # what numpy.savez calls an array without a name


def is_array_file(path: Path) -> bool:
    """Whether a file's name says that it holds arrays, in upper or lower case."""
    return path.suffix.lower() in SUFFIXES


def read_arrays(path: Path, name: str) -> dict[str, np.ndarray]:
    """All arrays of an npz file, or the one array without a name of an npy or npz file under `name`. Pickled objects are refused.

    Raises ImageError for a file that cannot be read, InputError for arrays that do not fit in memory.
    """
    shapes = array_shapes(path, name)
    try:
        if path.suffix.lower() == ".npy":
            return {name: np.load(path, allow_pickle=False)}
        with np.load(path, allow_pickle=False) as archive:
            return {member: archive[member if member in archive.files else UNNAMED] for member in shapes}
    except MemoryError:
        raise
    except Exception as error:  # whatever the readers of numpy and zipfile raise on damaged bytes
        raise _unreadable(path, error) from error


def array_shapes(path: Path, name: str) -> dict[str, tuple[int, ...]]:
    """The shapes of what `read_arrays` would read, from headers alone. Errors as of `read_arrays`."""
    check_regular(path)
    try:
        if path.suffix.lower() == ".npy":
            with path.open("rb") as file:
                shapes = {name: _shape(file, path.stat().st_size)}
            size = path.stat().st_size
        else:
            with path.open("rb") as file:
                if file.read(2) != b"PK":  # zipfile looks from the end, numpy from the beginning
                    raise zipfile.BadZipFile("it is not a zip archive")
            with zipfile.ZipFile(path) as archive:
                members = [member for member in archive.infolist() if not member.is_dir()]
                shapes = {
                    member.filename.removesuffix(".npy"): _member_shape(archive, member) for member in members
                }
                shapes = {name: shapes[UNNAMED]} if list(shapes) == [UNNAMED] else shapes
            size = sum(member.file_size for member in members)
    except MemoryError:
        raise
    except Exception as error:  # as above
        raise _unreadable(path, error) from error
    check_memory(size, f"{path}: its arrays", "split the file, or use bcm-edge map on smaller files")
    return shapes


def required(arrays: Mapping[str, np.ndarray], name: str, path: Path, advice: str = "") -> np.ndarray:
    """The array of a name. Raises ImageError, which says what the file has instead."""
    if name not in arrays:
        raise ImageError(f"{path}: has no array `{name}` (it has {', '.join(arrays) or 'no arrays'}){advice}")
    return arrays[name]


def save_npz(path: Path, arrays: Arrays, force: bool = False) -> None:
    """Write the arrays that are not None to one npz file, whole or not at all."""
    with replacing(path, force) as partial, partial.open("wb") as file:
        present: dict[str, Any] = {name: array for name, array in arrays.items() if array is not None}
        np.savez(file, **present)


def _member_shape(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> tuple[int, ...]:
    with archive.open(member) as file:
        try:
            return _shape(file, member.file_size)
        except ValueError as error:
            raise ValueError(f"{member.filename}: {error}") from None


def _shape(file: IO[bytes], size: int) -> tuple[int, ...]:
    """The shape in the header of an npy file of `size` bytes. Raises ValueError unless the file holds as many values as it says."""
    head = file.read(6)
    if head != b"\x93NUMPY":
        raise ValueError("not an npy array")
    version = tuple(file.read(2))
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    if dtype.hasobject:
        raise ValueError("holds Python objects, which are not read because they can run code; save numbers")
    if min(shape, default=0) < 0:
        raise ValueError(f"its header has the shape {shape}")
    promised, held = math.prod(shape), size - file.tell()
    if promised * dtype.itemsize != held:
        raise ValueError(
            f"its header promises {promised} values of {dtype.itemsize} bytes, and {held} bytes follow"
        )
    return shape


def _unreadable(path: Path, error: Exception) -> ImageError:
    if kind := _kind(path):
        return ImageError(f"{path}: not a readable {path.suffix.lower()[1:]} file of arrays ({kind})")
    return ImageError(
        f"{path}: not a readable {path.suffix.lower()[1:] or 'npz'} file of arrays ({error or type(error).__name__})"
    )


def _kind(path: Path) -> str:
    """What a file is that is not one of arrays, where its first bytes tell."""
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
    return "it is empty" if not head else ""
