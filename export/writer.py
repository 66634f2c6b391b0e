"""Writing ONNX by hand: a graph under construction, and a weights file that several graphs share."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

ALIGNMENT = 64  # bytes: the width of a cache line and of the widest vector load


class WeightsFile:
    """One external-data file. A tensor added twice under one name is written once."""

    def __init__(self, path: Path) -> None:
        self._name = path.name
        self._file = path.open("wb")
        self._entries: dict[str, tuple[int, int]] = {}  # name → (offset, length)

    def __enter__(self) -> WeightsFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()

    def add(self, name: str, values: np.ndarray, shape: tuple[int, ...]) -> TensorProto:
        """A float32 initializer of the given shape whose bytes live in this file."""
        if name not in self._entries:
            self._file.write(b"\0" * (-self._file.tell() % ALIGNMENT))
            self._entries[name] = (self._file.tell(), values.nbytes)
            self._file.write(np.ascontiguousarray(values, dtype="<f4").data)
        offset, length = self._entries[name]
        proto = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=shape, data_location=TensorProto.EXTERNAL)
        for key, value in {"location": self._name, "offset": offset, "length": length}.items():
            proto.external_data.add(key=key, value=str(value))
        return proto


class GraphBuilder:
    """Nodes and initializers in the making; values are passed around by name.
    Nodes are named PATH/OPERATOR after the module they come from, so that a profile or an error says where it is.
    """

    def __init__(self, weights: WeightsFile) -> None:
        self._weights = weights
        self._nodes: list[onnx.NodeProto] = []
        self._uses: Counter[str] = Counter()
        self._initializers: dict[str, TensorProto] = {}

    def op(self, kind: str, *inputs: str, at: str, outputs: int = 1, **attributes: Any) -> str:
        """Append a node; returns the name of its (first) output. Further outputs are called NAME:1, NAME:2, …"""
        path = f"{at}/{kind}"
        self._uses[path] += 1
        name = path if self._uses[path] == 1 else f"{path}_{self._uses[path]}"
        names = [name] + [f"{name}:{i}" for i in range(1, outputs)]
        self._nodes.append(helper.make_node(kind, inputs, names, name=name, **attributes))
        return name

    def constant(self, values: object, dtype: type = np.float32) -> str:
        """A small constant kept inside the graph; equal ones are one."""
        array = np.asarray(values, dtype)
        name = f"const_{array.dtype}_{'x'.join(map(str, array.shape))}_{'_'.join(map(str, array.ravel()))}"
        self._initializers.setdefault(name, numpy_helper.from_array(array, name))
        return name

    def weight(self, name: str, tensor: Tensor, shape: tuple[int, ...] | None = None) -> str:
        """A weight in the shared file, under its state-dict name, reshaped on the way if `shape` says so."""
        if name not in self._initializers:
            self._initializers[name] = self._weights.add(name, tensor.detach().numpy(), shape or tuple(tensor.shape))
        return name

    def build(self, name: str, inputs: dict[str, onnx.TypeProto], outputs: dict[str, onnx.TypeProto], result: str) -> onnx.GraphProto:
        """The finished graph; the value `result`, computed by the last node, becomes its one output."""
        assert self._nodes[-1].output[0] == result
        (self._nodes[-1].output[0],) = outputs
        ends = [[onnx.ValueInfoProto(name=value, type=kind) for value, kind in values.items()] for values in (inputs, outputs)]
        return helper.make_graph(self._nodes, name, ends[0], ends[1], list(self._initializers.values()))
