"""Data sets as shards: npz, npy and Parquet files, whose rows are counted, read by ranges, and written.

A row has an image (`images` or `image`), or what an image is generated from: a latent (`latents`) or a seed.
It may also have a label (`labels` or `label`) and a seed (`seeds` or `seed`). In Parquet, an image is a
tensor, nested lists, a flat list in the order of the model, or an encoded picture (bytes, or a struct with
`bytes`).
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import BcmError, ImageError, InputError
from ..runtime.classes import named_labels
from ..runtime.pictures.folders import find_images, folder_images, ignored_by_systems
from ..runtime.pictures.formats import read_picture
from ..runtime.pictures.images import images_from_array
from ..runtime.pixels import ValueRange
from ..runtime.storage.arrays import array_shapes, read_arrays, save_npz
from ..runtime.storage.files import check_regular, replacing
from ..runtime.storage.hashes import sha256
from .tables import count_rows, read_rows, write_table

SUFFIXES = (".npz", ".npy", ".parquet")

# Name of an array → another name that its column in Parquet may have.
NAMES = {
    "images": "image",
    "latents": "latent",
    "labels": "label",
    "seeds": "seed",
}


@dataclass(frozen=True)
class Source:
    """An input file, or a folder of image files."""

    name: str
    # A file, or a folder of image files. Without an input it is "", and `rows` images are generated from
    # their seeds.
    path: str
    # Bytes.
    size: int
    sha256: str
    # -1 if they cannot be counted.
    rows: int
    # The arrays of NAMES that the file contains.
    holds: tuple[str, ...] = ()
    # Why the file cannot be used, or "".
    problem: str = ""

    def facts(self) -> dict[str, Any]:
        """Return what job.json records about the file."""
        return {"name": self.name, "size": self.size, "sha256": self.sha256, "rows": self.rows}


def find(dataset: str, task: str, sample_shape: tuple[int, int, int]) -> list[Source]:
    """Return the files of a data set in the order of their names.

    dataset: a file, a folder of files, a folder of image files or of classes (`find_images`), or for the
    task generate a number of images.
    Raises ImageError if there are no files, or if none can be used; InputError for 0 images.
    """
    path = Path(dataset)
    if task == "generate" and dataset.isdecimal() and not path.exists():
        if not int(dataset):
            raise InputError("DATASET: the number of images must be at least 1, not 0")
        return [Source("generated.npz", "", 0, "", int(dataset))]
    if not path.exists():
        hint = "; a number of images needs --task generate" if dataset.isdecimal() else ""
        raise ImageError(f"{dataset}: no such file or folder{hint}")
    files = _shards(path) if path.is_dir() else [path]
    if not files and task != "generate":
        return _picture_folders(path)
    if not files:
        raise ImageError(f"{dataset}: the folder has no {', '.join(SUFFIXES)} files")
    sources = [_examine(file, task, sample_shape) for file in files]
    if all(source.problem for source in sources):
        others = f" (and {len(files) - 1} other files cannot be used)" if len(files) > 1 else ""
        raise ImageError(f"{sources[0].problem}{others}")
    return sources


def _picture_folders(folder: Path) -> list[Source]:
    """Return a source for a folder of image files, or one for each of its sub-folders, which are classes.

    Raises ImageError for a folder without images.
    """
    try:
        images = find_images(folder)
    except ImageError as error:
        raise ImageError(f"{folder}: the folder has no {', '.join(SUFFIXES)} files ({error})") from error
    groups: dict[Path, list[Path]] = {}
    for file in images.files:
        groups.setdefault(file.parent, []).append(file)
    holds = ("images",) if images.classes is None else ("images", "labels")
    sources = []
    for group, files in groups.items():
        digest, size = hashlib.sha256(), 0
        for file in files:
            check_regular(file)
            try:
                digest.update(f"{file.name}\0{sha256(file)}\0".encode("utf-8", "surrogateescape"))
                size += file.stat().st_size
            except OSError as error:
                raise ImageError(f"{file}: cannot be read ({error.strerror or error})") from error
        name = f"{group.absolute().name}.npz"
        sources.append(Source(name, str(group.absolute()), size, digest.hexdigest(), len(files), holds))
    return sources


def _examine(file: Path, task: str, sample_shape: tuple[int, int, int]) -> Source:
    if file.suffix.lower() not in SUFFIXES:
        raise ImageError(f"{file}: unsupported format; give {' or '.join(SUFFIXES)} files")
    check_regular(file)
    try:
        size, digest = file.stat().st_size, sha256(file)
    except OSError as error:
        raise ImageError(
            f"{file}: cannot be read ({error.strerror or error}); check its permissions"
        ) from error
    try:
        shapes, names = _shapes(file, task)
        rows = _rows(file, task, shapes, names)
    except BcmError as error:
        return Source(file.name, str(file.absolute()), size, digest, -1, problem=str(error))
    problem = ""
    latents = shapes.get("latents") or ()
    if not rows:
        problem = f"{file}: has no rows"
    elif task == "generate" and len(latents) > 1 and latents[1:] != sample_shape:
        problem = _wrong_latents(file, latents, sample_shape)
    return Source(file.name, str(file.absolute()), size, digest, rows, tuple(shapes), problem)


def _wrong_latents(file: Path, shape: tuple[int, ...], sample_shape: tuple[int, int, int]) -> str:
    expected = ", ".join(map(str, sample_shape))
    return f"{file}: latents have shape {list(shape)}, expected [N, {expected}]"


def _shards(folder: Path) -> list[Path]:
    """Return the npz, npy and Parquet files of a folder in the order of their names. Raises ImageError."""
    try:
        files = [file for file in folder.iterdir() if not file.is_dir() and not ignored_by_systems(file)]
    except OSError as error:
        raise ImageError(
            f"{folder}: cannot be read ({error.strerror or error}); check its permissions"
        ) from error
    return sorted(file for file in files if file.suffix.lower() in SUFFIXES)


def _shapes(file: Path, task: str) -> tuple[dict[str, tuple[int, ...]], list[str]]:
    """Return the shapes of a file's arrays, and the names of all of them. Raises ImageError.

    In Parquet, shapes are (N,), and only the arrays of NAMES have one.
    """
    if file.suffix.lower() == ".parquet":
        return count_rows(file, NAMES)
    shapes = array_shapes(file, "latents" if task == "generate" else "images")
    return shapes, list(shapes)


def _rows(file: Path, task: str, shapes: Mapping[str, tuple[int, ...]], names: Sequence[str]) -> int:
    """Return the number of rows of a file, whose arrays have these names. Raises ImageError."""
    accepted = ("latents", "seeds") if task == "generate" else ("images",)
    present = [name for name in accepted if name in shapes]
    if not present:
        raise ImageError(
            f"{file}: has no array `{'` or `'.join(accepted)}`, which {task} needs "
            f"(it has {', '.join(names) or 'no arrays'})"
        )
    shape = shapes[present[0]]
    if not shape:
        raise ImageError(
            f"{file}: {present[0]} is a single number, expected an array with one element per row"
        )
    rows = shape[0]
    for name in ("labels", "seeds"):
        if name in shapes and shapes[name] and shapes[name][0] != rows:
            raise ImageError(f"{file}: has {shapes[name][0]} {name}, but {rows} rows; give one per row")
    return rows


def read(
    path: str,
    start: int,
    stop: int,
    task: str,
    sample_shape: tuple[int, int, int],
    value_range: ValueRange = None,
) -> dict[str, np.ndarray]:
    """Return rows [start, stop) of a file's arrays, as far as the file contains them.

    Returns `images` or `latents` float32 [n, C, H, W], `labels` (integers or class names) [n], `seeds` [n].
    Raises ImageError for arrays that cannot be read or do not fit `sample_shape`.
    """
    file = Path(path)
    if file.is_dir():
        return _pictures(file, start, stop, sample_shape)
    names = [name for name in NAMES if name != ("images" if task == "generate" else "latents")]
    if file.suffix.lower() != ".parquet":
        rows = {name: array[start:stop] for name, array in _arrays(path, task).items() if name in names}
    else:
        rows = read_rows(file, start, stop, names, NAMES, sample_shape)
    n = stop - start
    for name, array in rows.items():
        kinds = {"labels": "iuU", "seeds": "iu"}.get(name)
        if len(array) != n or (kinds and (array.ndim != 1 or array.dtype.kind not in kinds)):
            expected = "integers, one per row" if kinds else "arrays, one per row"
            raise ImageError(f"{file}: {name} must be {expected}, got {array.dtype} {list(array.shape)}")
    if "images" in rows:
        rows["images"] = images_from_array(rows["images"], str(file), value_range, sample_shape)
    if "latents" in rows and rows["latents"].shape[1:] != sample_shape:
        raise ImageError(_wrong_latents(file, rows["latents"].shape, sample_shape))
    return rows


def _pictures(
    folder: Path, start: int, stop: int, sample_shape: tuple[int, int, int]
) -> dict[str, np.ndarray]:
    """Return `images` [start, stop) of a folder of image files, and its name as their `labels`.

    The labels are used only if the folder is a class. Raises ImageError.
    """
    files = folder_images(folder)[start:stop]
    images = np.stack([read_picture(file, sample_shape, str(file)) for file in files])
    return {"images": images, "labels": np.array([folder.name] * len(files))}


@functools.lru_cache(maxsize=1)  # consecutive shards are often ranges of one file
def _arrays(path: str, task: str) -> dict[str, np.ndarray]:
    arrays = read_arrays(Path(path), "latents" if task == "generate" else "images")
    if (labels := named_labels(arrays, path)) is not None:
        arrays["labels"] = labels
    return {name: np.atleast_1d(array) for name, array in arrays.items() if name in NAMES}


def write(path: Path, arrays: Mapping[str, np.ndarray | None]) -> None:
    """Write an output file with arrays of equal numbers of rows; arrays that are None are left out.

    The file is complete or absent. Equal arrays make equal bytes. Raises OutputError.
    """
    present = {name: array for name, array in arrays.items() if array is not None}
    if path.suffix == ".npz":
        save_npz(path, present, force=True)
    else:
        with replacing(path, force=True) as partial:
            write_table(partial, present)


def held_arrays(sources: Sequence[Source]) -> set[str]:
    """Return the arrays of NAMES that any usable file of a data set contains."""
    return {name for source in sources if not source.problem for name in source.holds}
