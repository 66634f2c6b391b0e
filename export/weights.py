"""The files from which ONNX graphs load weights (ONNX external data). Several graphs share a file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol

import numpy as np
from onnx import TensorProto, helper

from ..errors import CheckpointError

ALIGNMENT = 64  # bytes: the width of a cache line and of the widest vector load
# The type of a tensor in a safetensors file → its ONNX element type.
_TYPES = {"F32": TensorProto.FLOAT, "F16": TensorProto.FLOAT16}


class Weights(Protocol):
    """A file that stores the weights of graphs."""

    # Whether several weights of a checkpoint may be stored as one tensor.
    joins: bool

    def add(self, name: str, values: np.ndarray, shape: Sequence[int], data_type: int) -> TensorProto:
        """Return an initializer with these values. Its type may be another one that holds them exactly.

        values: bytes, uint8. shape: of the initializer. data_type: the ONNX element type of the values.
        """
        ...


class WeightsFile:
    """An external-data file being written. A tensor added twice under the same name is stored once."""

    joins = True

    def __init__(self, path: Path) -> None:
        self._name = path.name
        self._file = path.open("wb")
        self._entries: dict[str, tuple[int, int]] = {}  # name → (offset, length), in bytes

    def __enter__(self) -> WeightsFile:
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def add(self, name: str, values: np.ndarray, shape: Sequence[int], data_type: int) -> TensorProto:
        """Store the bytes of `values` in the file and return an initializer that refers to them.

        shape, data_type: of the initializer; data_type is an ONNX element type.
        """
        if name not in self._entries:
            padding = -self._file.tell() % ALIGNMENT
            self._file.write(b"\0" * padding)
            self._entries[name] = (self._file.tell(), values.nbytes)
            self._file.write(np.ascontiguousarray(values).data)
        offset, length = self._entries[name]
        return _external(name, shape, data_type, self._name, offset, length)


class CheckpointFile:
    """A checkpoint in the format of safetensors, from which graphs load the weights as they are stored."""

    joins = False

    def __init__(self, path: Path) -> None:
        self._path = path
        self._content = path.read_bytes()
        self._start = 8 + int.from_bytes(self._content[:8], "little")
        self._entries = json.loads(self._content[8 : self._start])

    def add(self, name: str, values: np.ndarray, shape: Sequence[int], data_type: int) -> TensorProto:
        """Return an initializer that refers to the tensor of this name in the file, in the type of the file.

        A tensor that is not in the file, because it is computed and not trained, is stored in the graph.
        Raises CheckpointError if the file has other values.
        """
        if name not in self._entries:
            return TensorProto(name=name, data_type=data_type, dims=shape, raw_data=values.tobytes())
        entry = self._entries[name]
        start, end = (self._start + offset for offset in entry["data_offsets"])
        stored_type = _TYPES.get(entry["dtype"])
        if stored_type is None or not self._holds(start, end, stored_type, values, data_type):
            raise CheckpointError(f"{self._path}: {name} cannot be loaded as it is stored; write a new file")
        return _external(name, shape, stored_type, self._path.name, start, end - start)

    def _holds(self, start: int, end: int, stored_type: int, values: np.ndarray, data_type: int) -> bool:
        """Whether bytes of the file are the values, after conversion to their type."""
        stored = np.frombuffer(self._content[start:end], helper.tensor_dtype_to_np_dtype(stored_type))
        return stored.astype(helper.tensor_dtype_to_np_dtype(data_type)).tobytes() == values.tobytes()


def _external(
    name: str, shape: Sequence[int], data_type: int, file: str, offset: int, length: int
) -> TensorProto:
    """Return an initializer that refers to bytes of a file."""
    tensor = TensorProto(name=name, data_type=data_type, dims=shape, data_location=TensorProto.EXTERNAL)
    for key, value in {"location": file, "offset": offset, "length": length}.items():
        tensor.external_data.add(key=key, value=str(value))
    return tensor
