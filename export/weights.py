"""One file of weights that several graphs take theirs from (ONNX external data)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import numpy as np
from onnx import TensorProto

ALIGNMENT = 64  # bytes: the width of a cache line and of the widest vector load


class WeightsFile:
    """One external-data file. A tensor added twice under one name is written once."""

    def __init__(self, path: Path) -> None:
        self._name = path.name
        self._file = path.open("wb")
        self._entries: dict[str, tuple[int, int]] = {}  # name → (offset, length)

    def __enter__(self) -> WeightsFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def add(self, name: str, values: np.ndarray, shape: Sequence[int], data_type: int) -> TensorProto:
        """An initializer of the given shape and ONNX type whose bytes, those of `values`, live in this file."""
        if name not in self._entries:
            self._file.write(b"\0" * (-self._file.tell() % ALIGNMENT))
            self._entries[name] = (self._file.tell(), values.nbytes)
            self._file.write(np.ascontiguousarray(values).data)
        offset, length = self._entries[name]
        proto = TensorProto(name=name, data_type=data_type, dims=shape, data_location=TensorProto.EXTERNAL)
        for key, value in {"location": self._name, "offset": offset, "length": length}.items():
            proto.external_data.add(key=key, value=str(value))
        return proto
