"""Tensors out of weights files: torch files and safetensors.

No file is ever executed: pickles are read by torch's restricted loader, which takes tensors and nothing else. Large files are
memory-mapped, so that a 1.1 GB checkpoint costs no memory of its own until the network reads it.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..errors import CheckpointError

METADATA_KEY = "bcm_edge"  # the one entry this package writes into a safetensors header: a JSON object


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """(tensors, this package's metadata) of a file, by what the file begins with rather than by its name."""
    try:
        with path.open("rb") as file:
            head = file.read(9)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from error
    if head[8:9] == b"{":
        return _read_safetensors(path)
    if head[:2] == b"PK":
        return _read_torch(path, mmap=True), {}
    if head[:1] == b"\x80":  # a bare pickle, torch's format before 1.6
        return _read_torch(path, mmap=False), {}
    raise CheckpointError(f"{path}: not a checkpoint (neither safetensors nor a torch file)")


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = json.loads((file.metadata() or {}).get(METADATA_KEY, "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        if not isinstance(metadata, dict) or not all(
            isinstance(metadata.get(key, {}), dict) for key in ("config", "schedules", "provenance")
        ):
            raise ValueError("its header is not one of this package")
    except (SafetensorError, ValueError) as error:
        raise CheckpointError(f"{path}: damaged or truncated safetensors ({error})") from error
    if "sha256" in metadata and metadata["sha256"] != digest(tensors):
        raise CheckpointError(f"{path}: the weights are not those that were saved (their hash differs); fetch the file again")
    return tensors, metadata


def _read_torch(path: Path, mmap: bool) -> dict[str, Tensor]:
    try:
        if mmap:
            with zipfile.ZipFile(path) as archive:  # torch checks no checksum, so a flipped bit would pass unseen
                if damaged := archive.testzip():
                    raise CheckpointError(f"{path}: damaged, the checksum of {damaged} is wrong; fetch the file again")
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path}: refused, because it holds more than tensors (nothing in it was executed). Save the state dict alone."
        ) from error
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, AssertionError, LookupError, TypeError, ValueError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)  # whatever torch's reader stumbles on in broken bytes
        raise CheckpointError(f"{path}: damaged, truncated or not a torch checkpoint ({reason})") from error


def digest(tensors: Mapping[str, Tensor]) -> str:
    """sha256 over names and values in name order."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].contiguous().numpy().data)
    return digest.hexdigest()
