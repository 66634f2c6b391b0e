"""Read files of torch.save without executing code: only tensors and plain containers are accepted."""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
import zlib
from pathlib import Path
from typing import Any

import torch

from ..errors import CheckpointError
from ..runtime.machine.resources import check_memory
from ..runtime.wording import printable
from .other_files import describe_archive

# What torch's reader and zipfile raise for damaged files.
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


def read_archive(path: Path) -> Any:
    """Return the content of a torch file in the zip format. Raises CheckpointError."""
    try:
        with zipfile.ZipFile(path) as archive:
            if description := describe_archive(archive):
                raise CheckpointError(f"{path}: {description}")
            # torch does not compress. A file that was compressed by other programs cannot be memory-mapped.
            records = archive.infolist()
            stored = all(record.compress_type == zipfile.ZIP_STORED for record in records)
            if not stored:
                size = sum(record.file_size for record in records)
                advice = "save it again with torch.save, which does not compress"
                check_memory(size, f"{path}, which is compressed,", advice)
            if damaged := archive.testzip():  # torch does not verify checksums
                raise CheckpointError(
                    f"{path}: damaged, the checksum of {printable(damaged)} is wrong; download the file again"
                )
    except _BROKEN as error:
        raise _damaged(path, error) from error
    return _load(path, mmap=stored)


def read_old_file(path: Path) -> Any:
    """Return the content of a torch file of the format before torch 1.6. Raises CheckpointError."""
    return _load(path, mmap=False)


def _load(path: Path, mmap: bool) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's warnings about the pickling of a file
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except pickle.UnpicklingError as error:
        raise CheckpointError(f"{path}: refused, because {_refusal(str(error))}") from error
    except _BROKEN as error:
        raise _damaged(path, error) from error


def _refusal(reason: str) -> str:
    """Return what torch's restricted loader did not accept, and what to do. reason: its message."""
    if "Unsupported operand" in reason:
        return (
            "it is written with a pickle protocol that torch's restricted loader does not read "
            "(nothing in it was executed). Save it again with torch.save, without pickle_protocol"
        )
    name = re.search(r"GLOBAL ([\w.]+)", reason)
    example = f", for example {printable(name[1])}" if name else ""
    return (
        f"it contains more than tensors{example} (nothing in it was executed). "
        "Save the state dict alone, with the program that wrote the file: "
        "torch.save(network.state_dict(), 'weights.pt')"
    )


def _damaged(path: Path, error: Exception) -> CheckpointError:
    reason = next(iter(str(error).splitlines()), type(error).__name__)
    return CheckpointError(f"{path}: damaged, truncated or not a torch checkpoint ({printable(reason)})")
