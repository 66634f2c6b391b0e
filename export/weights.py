"""A weights file that several ONNX graphs share (ONNX external data)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import numpy as np
from onnx import TensorProto

ALIGNMENT = 64  # bytes: the width of a cache line and of the widest vector load


class WeightsFile:
    """An external-data file being written. A tensor added twice under the same name is stored once."""

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
        tensor = TensorProto(name=name, data_type=data_type, dims=shape, data_location=TensorProto.EXTERNAL)
        for key, value in {"location": self._name, "offset": offset, "length": length}.items():
            tensor.external_data.add(key=key, value=str(value))
        return tensor
