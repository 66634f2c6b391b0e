"""Read weights files: torch files, safetensors, either of them in several shards with an index, and pipelines
of diffusers.

Nothing in a file is executed: pickles are read by torch's restricted loader, which accepts only tensors.
Large files are memory-mapped, so a 1.1 GB checkpoint needs no memory of its own until the network reads it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..errors import CheckpointError
from ..runtime.storage.user_paths import refuse_url
from ..runtime.wording import listed, printable
from .config import read_fields
from .diffusers_unet import network_fields, renamed, unet_folder
from .other_files import (
    BLANK,
    HEAD,
    describe_file,
    describe_folder,
    describe_pickle,
    describe_unpacked,
    is_text,
    is_unpacked,
)
from .torch_files import read_archive, read_old_file

METADATA_KEY = "bcm_edge"  # this package's entry in the header of a safetensors file: a JSON object
STATE_KEY = "bcm_edge_state"  # the same in the state file of a training run (training/state.py)

_SUFFIXES = (".safetensors", ".pt", ".pth", ".ckpt", ".bin")  # suffixes of weights files in a folder
# For example model-00001-of-00002.safetensors.
_SHARD = re.compile(r"(?P<name>.+)-\d{5}-of-(?P<shards>\d{5})(?P<suffix>\.\w+)")
# The weights of a U-Net of diffusers. A folder may contain several, with equal values; the first is read.
_UNET_FILES = (
    "diffusion_pytorch_model.safetensors",
    "diffusion_pytorch_model.safetensors.index.json",
    "diffusion_pytorch_model.bin",
    "diffusion_pytorch_model.bin.index.json",
)
_TORCH_MAGIC = b"l\xfc\x9cF\xf9 j\xa8P\x19."  # the end of the first record of files before torch 1.6


@dataclass(frozen=True)
class WeightsFile:
    """The content of a weights file."""

    # Usually a mapping of names to tensors; torch.save accepts any object.
    content: Any
    # The files that were read; several if the weights are in shards.
    files: tuple[Path, ...]
    # This package's entry in the header of a safetensors file.
    metadata: dict[str, Any] = field(default_factory=dict)
    # The name of the folder of a pipeline of diffusers; None for other files.
    folder: str | None = None

    @property
    def name(self) -> str:
        """The name of the folder of a pipeline, else of the file or of the index of shards."""
        return self.folder or self.files[0].name


def read_weights(path: Path) -> WeightsFile:
    """Read a weights file, an index of shards, the one weights file in a folder, or a pipeline of diffusers.

    The first bytes of a file decide its format, not its name. Raises CheckpointError, which describes files
    that are not weights files.
    """
    folder = unet_folder(path)
    return _read_unet(folder, path) if folder else _read(path)


def _read(path: Path) -> WeightsFile:
    """Read a weights file, an index of shards, or the one weights file in a folder."""
    path = _file_of(path)
    head = _head(path)
    if is_text(head) and head.lstrip(BLANK).startswith(b"{") and (shards := _shards(path)):
        return _read_shards(path, shards)
    shard = _SHARD.fullmatch(path.name)
    if shard and int(shard["shards"]) > 1:
        raise CheckpointError(_shard_alone(path, shard))
    return _read_one(path, head)


def digest(tensors: Mapping[str, Tensor]) -> str:
    """Return the sha256 over the names and values of tensors, in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _shard_alone(path: Path, shard: re.Match[str]) -> str:
    index = path.with_name(f"{shard['name']}{shard['suffix']}.index.json")
    if index.is_file():
        advice = f"give their index: {index}"
    else:
        advice = f"download all of them and their index, {index.name}"
    return f"{path}: one of {int(shard['shards'])} shards, each with a part of the weights; {advice}"


def _file_of(path: Path) -> Path:
    """Return the path itself, or the weights file in a folder. Raises CheckpointError."""
    try:
        if not path.is_dir():
            return path
        if description := describe_folder(path):
            raise CheckpointError(f"{path}: {description}")
        entries = [entry for entry in path.iterdir() if not entry.name.startswith(".")]
        names = sorted(f"{entry.name}/" if entry.is_dir() else entry.name for entry in entries)
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
            f"{path}: shards of weights without their index; "
            "download the file that ends in .index.json as well"
        )
    content = f"it contains {listed(names)}" if names else "it is empty"
    raise CheckpointError(f"{path}: a folder without a weights file; {content}")


def _head(path: Path) -> bytes:
    """Return the first bytes of a file. Raises CheckpointError."""
    refuse_url(path, CheckpointError)
    try:
        if path.exists() and not path.is_file():  # opening a pipe could block forever
            raise CheckpointError(f"{path}: a device or a pipe; a checkpoint must be a regular file")
        with path.open("rb") as file:
            return file.read(HEAD)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from error


def _read_unet(folder: Path, path: Path) -> WeightsFile:
    """Read a U-Net of diffusers: its tensors by the names of this package, and its configuration.

    folder: the folder of the U-Net. path: a weights file in it, the folder itself, or the pipeline.
    """
    config = folder / "config.json"
    fields = network_fields(read_fields(config), str(config))
    files = [path] if path.is_file() else [folder / name for name in _UNET_FILES if (folder / name).is_file()]
    weights = _read(files[0] if files else folder)
    if not isinstance(weights.content, Mapping):
        raise CheckpointError(f"{folder}: its weights file does not contain a state dict")
    content = renamed(weights.content, str(weights.files[0]))
    return WeightsFile(
        content, (*weights.files, config), {"config": fields}, None if path.is_file() else path.resolve().name
    )


def _read_one(path: Path, head: bytes) -> WeightsFile:
    if head[8:9] == b"{" and not is_text(head):  # the first 8 bytes of safetensors are a length
        return _read_safetensors(path)
    if head[:2] == b"PK":
        return WeightsFile(read_archive(path), (path,))
    if head[:1] == b"\x80":  # a pickle; torch files before 1.6 begin with one
        if is_unpacked(path):
            raise CheckpointError(f"{path}: part of {describe_unpacked(path.parent)}")
        if len(head) == HEAD and _TORCH_MAGIC not in head[:64]:
            raise CheckpointError(f"{path}: {describe_pickle()}")
        return WeightsFile(read_old_file(path), (path,))
    raise CheckpointError(f"{path}: {describe_file(path, head)}")


def _read_safetensors(path: Path) -> WeightsFile:
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            if STATE_KEY in header:
                raise CheckpointError(
                    f"{path}: the state of a training run, not a checkpoint; continue it with train --resume"
                )
            metadata = json.loads(header.get(METADATA_KEY, "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        if not _is_valid(metadata):
            raise ValueError(f"the entry {METADATA_KEY} of its header is not valid")
    except (SafetensorError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: damaged or truncated safetensors ({error})") from error
    if "sha256" in metadata and metadata["sha256"] != digest(tensors):
        raise CheckpointError(
            f"{path}: the weights are not those that were saved (their sha256 differs); "
            "download the file again"
        )
    return WeightsFile(tensors, (path,), metadata)


def _is_valid(metadata: Any) -> bool:
    """Return whether the parts of a header have the types that `save_checkpoint` writes."""
    if not isinstance(metadata, dict):
        return False
    if not all(isinstance(metadata.get(key, {}), dict) for key in ("config", "schedules", "provenance")):
        return False
    return all(isinstance(text, str) for text in metadata.get("schedules", {}).values())


def _shards(path: Path) -> dict[str, str] | None:
    """Return tensor name → file name of an index, as Hugging Face's libraries write it.

    Returns None if the JSON file is not an index. Raises CheckpointError if it is malformed.
    """
    try:
        index = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: damaged or truncated JSON ({error})") from error
    shards = index.get("weight_map") if isinstance(index, dict) else None
    if shards is None:
        return None
    if isinstance(shards, dict) and shards and all(isinstance(file, str) for file in shards.values()):
        return shards
    raise CheckpointError(
        f"{path}: not an index of shards: weight_map must map names of tensors to names of files"
    )


def _read_shards(index: Path, shards: dict[str, str]) -> WeightsFile:
    names = sorted(set(shards.values()))
    _check_shards(index, names)
    tensors: dict[str, Any] = {}
    for name in names:
        path = index.parent / name
        content = _read_one(path, _head(path)).content
        if not isinstance(content, Mapping):
            kind = type(content).__name__
            raise CheckpointError(f"{path}: not a shard of a state dict, but a value of type {kind}")
        expected = {tensor for tensor, file in shards.items() if file == name}
        if differences := sorted(map(str, content.keys() ^ expected)):
            raise CheckpointError(
                f"{index}: the index and its shard {name} differ in {listed(differences, 3)}; "
                "download both again"
            )
        tensors |= content
    return WeightsFile(tensors, (index, *(index.parent / name for name in names)))


def _check_shards(index: Path, names: list[str]) -> None:
    """Raise CheckpointError unless all shards lie in the folder of the index and exist."""
    for name in names:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or not name.strip("./"):
            raise CheckpointError(
                f"{index}: refused, because the shard {printable(name)} lies outside the folder of the index"
            )
    try:
        missing = [name for name in names if not (index.parent / name).is_file()]
    except OSError as error:
        raise CheckpointError(f"{index}: a shard cannot be read ({error.strerror})") from error
    if missing:
        raise CheckpointError(
            f"{index}: {len(missing)} of {len(names)} shards are missing ({listed(missing)}); "
            "download them as well"
        )
