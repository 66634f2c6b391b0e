"""What weights files hold: torch files, safetensors, and either of them in several shards with an index.

No file is ever executed: pickles are read by torch's restricted loader, which takes tensors and nothing else. Large files are
memory-mapped, so that a 1.1 GB checkpoint costs no memory of its own until the network reads it.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import re
import warnings
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..errors import CheckpointError
from ..runtime.machine.resources import check_memory
from ..runtime.wording import listed, printable
from .other_files import (
    BLANK,
    HEAD,
    describe_archive,
    describe_file,
    describe_folder,
    describe_pickle,
    describe_unpacked,
    is_text,
    is_unpacked,
)

METADATA_KEY = "bcm_edge"  # the one entry this package writes into a safetensors header: a JSON object

_SUFFIXES = (".safetensors", ".pt", ".pth", ".ckpt", ".bin")  # of weights files, in a folder
_SHARD = re.compile(
    r"(?P<name>.+)-\d{5}-of-(?P<shards>\d{5})(?P<suffix>\.\w+)"
)  # model-00001-of-00002.safetensors
_TORCH_MAGIC = b"l\xfc\x9cF\xf9 j\xa8P\x19."  # the end of the first record that torch wrote before 1.6


@dataclass(frozen=True)
class WeightsFile:
    """What a file holds: usually a mapping of names to tensors, but torch.save takes any object."""

    content: Any
    files: tuple[Path, ...]  # several where the weights are in shards
    metadata: dict[str, Any] = field(default_factory=dict)  # of this package, from a safetensors header


def read_weights(path: Path) -> WeightsFile:
    """Read a weights file, an index of shards, or the one weights file of a folder, by what it begins with rather than by its name.

    Raises CheckpointError, which says what the file is where it is not a weights file.
    """
    path = _file_of(path)
    head = _head(path)
    if is_text(head) and head.lstrip(BLANK).startswith(b"{") and (shards := _shards(path)):
        return _read_shards(path, shards)
    if (shard := _SHARD.fullmatch(path.name)) and int(shard["shards"]) > 1:
        index = path.with_name(f"{shard['name']}{shard['suffix']}.index.json")
        advice = (
            f"give their index: {index}"
            if index.is_file()
            else f"download all of them and their index, {index.name}"
        )
        raise CheckpointError(
            f"{path}: one of {int(shard['shards'])} shards, each with a part of the weights; {advice}"
        )
    return _read_one(path, head)


def _file_of(path: Path) -> Path:
    """The path itself, or the weights file in a folder. Raises CheckpointError."""
    try:
        if not path.is_dir():
            return path
        if description := describe_folder(path):
            raise CheckpointError(f"{path}: {description}")
        names = sorted(
            entry.name + "/" * entry.is_dir() for entry in path.iterdir() if not entry.name.startswith(".")
        )
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from error
    weights = [
        name for name in names if name.endswith((*_SUFFIXES, ".index.json")) and not _SHARD.fullmatch(name)
    ]
    if len(weights) == 1:
        return path / weights[0]
    if weights:
        raise CheckpointError(
            f"{path}: a folder with {len(weights)} weights files ({listed(weights)}); give one of them"
        )
    if any(_SHARD.fullmatch(name) for name in names):
        raise CheckpointError(
            f"{path}: shards of weights without their index; download the file that ends in .index.json as well"
        )
    raise CheckpointError(
        f"{path}: a folder without a weights file; {f'it holds {listed(names)}' if names else 'it is empty'}"
    )


def _head(path: Path) -> bytes:
    """The first bytes of a file. Raises CheckpointError."""
    if str(path).startswith(("http:/", "https:/")):
        raise CheckpointError(
            f"{path}: an address, not a file. Nothing is downloaded; download the file, and give its path"
        )
    try:
        if path.exists() and not path.is_file():  # to open a pipe may wait for ever
            raise CheckpointError(f"{path}: a device or a pipe; a checkpoint must be a regular file")
        with path.open("rb") as file:
            return file.read(HEAD)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from error


def _read_one(path: Path, head: bytes) -> WeightsFile:
    if head[8:9] == b"{" and not is_text(head):  # the first 8 bytes are a length
        return _read_safetensors(path)
    if head[:2] == b"PK":
        return WeightsFile(_read_torch_archive(path), (path,))
    if head[:1] == b"\x80":  # a pickle; so are torch's files before 1.6
        if is_unpacked(path):
            raise CheckpointError(f"{path}: part of {describe_unpacked(path.parent)}")
        if len(head) == HEAD and _TORCH_MAGIC not in head[:64]:
            raise CheckpointError(f"{path}: {describe_pickle()}")
        return WeightsFile(_load_torch(path, mmap=False), (path,))
    raise CheckpointError(f"{path}: {describe_file(path, head)}")


# Safetensors


def _read_safetensors(path: Path) -> WeightsFile:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = json.loads((file.metadata() or {}).get(METADATA_KEY, "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        if not _is_ours(metadata):
            raise ValueError("its header is not one of this package")
    except (SafetensorError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: damaged or truncated safetensors ({error})") from error
    if "sha256" in metadata and metadata["sha256"] != digest(tensors):
        raise CheckpointError(
            f"{path}: the weights are not those that were saved (their hash differs); fetch the file again"
        )
    return WeightsFile(tensors, (path,), metadata)


def _is_ours(metadata: Any) -> bool:
    """Whether the parts of a header have the types that `save_checkpoint` writes."""
    if not isinstance(metadata, dict) or not all(
        isinstance(metadata.get(key, {}), dict) for key in ("config", "schedules", "provenance")
    ):
        return False
    return all(isinstance(text, str) for text in metadata.get("schedules", {}).values())


def digest(tensors: Mapping[str, Tensor]) -> str:
    """sha256 over names and values in name order."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


# Torch files


def _read_torch_archive(path: Path) -> Any:
    try:
        with zipfile.ZipFile(path) as archive:
            if description := describe_archive(archive):
                raise CheckpointError(f"{path}: {description}")
            records = archive.infolist()
            mmap = all(
                record.compress_type == zipfile.ZIP_STORED for record in records
            )  # torch never compresses; who zips again may
            if not mmap:
                size = sum(record.file_size for record in records)
                check_memory(
                    size,
                    f"{path}, which is compressed,",
                    "save it again with torch.save, which does not compress",
                )
            if damaged := archive.testzip():  # torch checks no checksum, so a flipped bit would pass unseen
                raise CheckpointError(
                    f"{path}: damaged, the checksum of {printable(damaged)} is wrong; fetch the file again"
                )
    except _BROKEN as error:
        raise _damaged(path, error) from error
    return _load_torch(path, mmap)


def _load_torch(path: Path, mmap: bool) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's, about how the file was pickled
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except pickle.UnpicklingError as error:
        raise CheckpointError(f"{path}: refused, because {_refusal(str(error))}") from error
    except _BROKEN as error:
        raise _damaged(path, error) from error


def _refusal(reason: str) -> str:
    """What torch's restricted loader did not take, from its message, and what to do."""
    if "Unsupported operand" in reason:
        return (
            "it is written with a pickle protocol that torch's restricted loader does not read (nothing in it was executed). "
            "Save it again with torch.save, without pickle_protocol"
        )
    held = re.search(r"GLOBAL ([\w.]+)", reason)
    kind = f", such as {printable(held[1])}" if held else ""
    return (
        f"it holds more than tensors{kind} (nothing in it was executed). "
        "Save the state dict alone, with the program that wrote the file: torch.save(network.state_dict(), 'weights.pt')"
    )


# What torch's reader and zipfile stumble on in broken bytes
_BROKEN = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    OSError,
    RuntimeError,
    AssertionError,
    LookupError,
    TypeError,
    ValueError,
    AttributeError,
    OverflowError,
    MemoryError,
)


def _damaged(path: Path, error: Exception) -> CheckpointError:
    reason = next(iter(str(error).splitlines()), type(error).__name__)
    return CheckpointError(f"{path}: damaged, truncated or not a torch checkpoint ({printable(reason)})")


# Shards


def _shards(path: Path) -> dict[str, str] | None:
    """Tensor name → file name, of an index as Hugging Face's libraries write it. None if the JSON file is not an index."""
    try:
        index = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: damaged or truncated JSON ({error})") from error
    shards = index.get("weight_map") if isinstance(index, dict) else None
    if shards is None:
        return None
    if (
        not isinstance(shards, dict)
        or not shards
        or not all(isinstance(file, str) for file in shards.values())
    ):
        raise CheckpointError(
            f"{path}: not an index of shards: weight_map must map names of tensors to names of files"
        )
    return shards


def _read_shards(index: Path, shards: dict[str, str]) -> WeightsFile:
    names = sorted(set(shards.values()))
    for name in names:
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts or not name.strip("./"):
            raise CheckpointError(
                f"{index}: refused, because the shard {printable(name)} lies outside the folder of the index"
            )
    try:
        missing = [name for name in names if not (index.parent / name).is_file()]
    except OSError as error:
        raise CheckpointError(f"{index}: a shard cannot be read ({error.strerror})") from error
    if missing:
        raise CheckpointError(
            f"{index}: {len(missing)} of {len(names)} shards are missing ({listed(missing)}); download them as well"
        )
    tensors: dict[str, Any] = {}
    for name in names:
        path = index.parent / name
        held = _read_one(path, _head(path)).content
        if not isinstance(held, Mapping):
            raise CheckpointError(
                f"{path}: no shard of a state dict, but a value of type {type(held).__name__}"
            )
        if wrong := sorted(
            map(str, held.keys() ^ {tensor for tensor, file in shards.items() if file == name})
        ):
            raise CheckpointError(
                f"{index}: the index and its shard {name} differ in {listed(wrong, 3)}; download both again"
            )
        tensors |= held
    return WeightsFile(tensors, (index, *(index.parent / name for name in names)))
