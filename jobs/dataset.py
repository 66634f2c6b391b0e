"""Data sets as shards: npz, npy and Parquet files found, counted without reading them whole, read by ranges of rows, and written.

A row is an image (`images`, or `image`), or what one is generated from: latents (`latents`) or a seed. Labels (`labels`, `label`) and
seeds (`seeds`, `seed`) may stand beside them. In Parquet an image is a tensor, nested lists, a flat list in the order of the model, or
an encoded picture (bytes, or a struct with `bytes`).
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import BcmError, ImageError, InputError
from ..runtime.classes import named_labels
from ..runtime.pictures.folders import ignored_by_systems
from ..runtime.pictures.images import images_from_array
from ..runtime.pixels import ValueRange
from ..runtime.storage.arrays import array_shapes, read_arrays, save_npz
from ..runtime.storage.files import check_regular, replacing
from ..runtime.storage.hashes import sha256
from .tables import count_rows, read_rows, write_table

SUFFIXES = (".npz", ".npy", ".parquet")
NAMES = {
    "images": "image",
    "latents": "latent",
    "labels": "label",
    "seeds": "seed",
}  # array → the column that may stand for it


@dataclass(frozen=True)
class Source:
    """One input file. rows: -1 where they cannot be counted. holds: which of NAMES it has. problem: why it cannot be used, or "".

    path: "" for no file at all: so many rows of nothing but a number.
    """

    name: str
    path: str
    size: int
    sha256: str
    rows: int
    holds: tuple[str, ...] = ()
    problem: str = ""

    def facts(self) -> dict[str, Any]:
        """What a job remembers of it."""
        return {"name": self.name, "size": self.size, "sha256": self.sha256, "rows": self.rows}


def find(dataset: str, task: str, sample_shape: tuple[int, int, int]) -> list[Source]:
    """The files of a data set (a file, a folder of them, or for generate a number) in the order of their names.

    Raises ImageError if there are none, or none can be used.
    """
    path = Path(dataset)
    if task == "generate" and dataset.isdecimal() and not path.exists():
        if not int(dataset):
            raise InputError("the number of images must be at least 1, not 0")
        return [Source("generated.npz", "", 0, "", int(dataset))]
    if not path.exists():
        number = "; a number of images is for --task generate" if str(dataset).isdecimal() else ""
        raise ImageError(f"{dataset}: no such file or folder{number}")
    files = _shards(path) if path.is_dir() else [path]
    if not files:
        raise ImageError(f"{dataset}: no shards in this folder (looked for {', '.join(SUFFIXES)})")
    sources = [_examine(file, task, sample_shape) for file in files]
    if all(source.problem for source in sources):
        raise ImageError(
            sources[0].problem + (f" (and {len(files) - 1} other files cannot be used)" if files[1:] else "")
        )
    return sources


def _examine(file: Path, task: str, sample_shape: tuple[int, int, int]) -> Source:
    if file.suffix.lower() not in SUFFIXES:
        raise ImageError(f"{file}: not a shard; give {' or '.join(SUFFIXES)} files")
    check_regular(file)
    try:
        size, digest = file.stat().st_size, sha256(file)
    except OSError as error:
        raise ImageError(f"{file}: cannot be read ({error.strerror or error})") from error
    try:
        shapes, others = _shapes(file, task)
        rows = _rows(file, task, shapes, others)
    except BcmError as error:
        return Source(file.name, str(file.absolute()), size, digest, -1, problem=str(error))
    wrong = ""
    if not rows:
        wrong = f"{file}: has no rows"
    elif (
        task == "generate" and len(shapes.get("latents") or ()) > 1 and shapes["latents"][1:] != sample_shape
    ):
        wrong = f"{file}: latents have shape {list(shapes['latents'])}, expected [N, {', '.join(map(str, sample_shape))}]"
    return Source(file.name, str(file.absolute()), size, digest, rows, tuple(shapes), wrong)


def _shards(folder: Path) -> list[Path]:
    """The npz, npy and Parquet files of a folder in the order of their names. Raises ImageError if it cannot be read."""
    try:
        files = [file for file in folder.iterdir() if not file.is_dir() and not ignored_by_systems(file)]
    except OSError as error:
        raise ImageError(f"{folder}: cannot be read ({error.strerror or error})") from error
    return sorted(file for file in files if file.suffix.lower() in SUFFIXES)


def _shapes(file: Path, task: str) -> tuple[dict[str, tuple[int, ...]], list[str]]:
    """The shapes of the arrays that a file has of NAMES, and the names of everything that it has. Raises ImageError."""
    if file.suffix.lower() == ".parquet":
        return count_rows(file, NAMES)
    shapes = array_shapes(file, "latents" if task == "generate" else "images")
    return shapes, list(shapes)


def _rows(file: Path, task: str, shapes: Mapping[str, tuple[int, ...]], others: Sequence[str]) -> int:
    wanted = ("latents", "seeds") if task == "generate" else ("images",)
    found = [shapes[name] for name in wanted if name in shapes]
    if not found:
        raise ImageError(
            f"{file}: has no array `{'` or `'.join(wanted)}` (it has {', '.join(others) or 'no arrays'})"
        )
    if not found[0]:
        raise ImageError(f"{file}: {wanted[0]} is a lone number")
    rows = found[0][0]
    for name in ("labels", "seeds"):
        if name in shapes and shapes[name] and shapes[name][0] != rows:
            raise ImageError(f"{file}: has {rows} rows, but {shapes[name][0]} {name}")
    return rows


def read(
    path: str,
    start: int,
    stop: int,
    task: str,
    sample_shape: tuple[int, int, int],
    value_range: ValueRange = None,
) -> dict[str, np.ndarray]:
    """Rows [start, stop) of a file: images or latents float32 [n, C, H, W], and labels (integers or class names) and seeds [n], as far as
    it has them.

    Raises ImageError for what cannot be read, or has another shape than the model takes.
    """
    file = Path(path)
    names = [name for name in NAMES if name != ("images" if task == "generate" else "latents")]
    if file.suffix.lower() != ".parquet":
        rows = {name: array[start:stop] for name, array in _arrays(path, task).items() if name in names}
    else:
        rows = read_rows(file, start, stop, names, NAMES, sample_shape)
    n = stop - start
    for name, array in rows.items():
        kinds = {"labels": "iuU", "seeds": "iu"}.get(name)
        if len(array) != n or (kinds and (array.ndim != 1 or array.dtype.kind not in kinds)):
            raise ImageError(f"{file}: {name} must be {'integers, ' if kinds else ''}one per row")
    if "images" in rows:
        rows["images"] = images_from_array(rows["images"], str(file), value_range, sample_shape)
    if "latents" in rows and rows["latents"].shape[1:] != sample_shape:
        expected = ", ".join(map(str, sample_shape))
        raise ImageError(f"{file}: latents has shape {list(rows['latents'].shape)}, expected [N, {expected}]")
    return rows


@functools.lru_cache(maxsize=1)  # ranges of one file follow one another
def _arrays(path: str, task: str) -> dict[str, np.ndarray]:
    arrays = read_arrays(Path(path), "latents" if task == "generate" else "images")
    if (labels := named_labels(arrays, path)) is not None:
        arrays["labels"] = labels
    return {name: np.atleast_1d(array) for name, array in arrays.items() if name in NAMES}


def write(path: Path, arrays: Mapping[str, np.ndarray | None]) -> None:
    """One output, whole or not at all: arrays of as many rows, None left out. Equal arrays make equal bytes. Raises OutputError."""
    given = {name: array for name, array in arrays.items() if array is not None}
    if path.suffix == ".npz":
        save_npz(path, given, force=True)
    else:
        with replacing(path, force=True) as partial:
            write_table(partial, given)


def names(sources: Sequence[Source]) -> set[str]:
    """What any usable file of a data set holds."""
    return {name for source in sources if not source.problem for name in source.holds}
