"""Writing ONNX by hand: a graph under construction, and a weights file that several graphs share."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from ..errors import CheckpointError

ALIGNMENT = 64  # bytes: the width of a cache line and of the widest vector load


@dataclass(frozen=True)
class Number:
    """A floating-point type: its name in ONNX and in torch."""

    onnx: int
    torch: torch.dtype


FP32 = Number(TensorProto.FLOAT, torch.float32)
FP16 = Number(TensorProto.FLOAT16, torch.float16)
BF16 = Number(TensorProto.BFLOAT16, torch.bfloat16)


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

    def add(self, name: str, values: Tensor, shape: tuple[int, ...], number: Number) -> TensorProto:
        """An initializer of the given shape and type whose bytes live in this file. Raises CheckpointError if the type cannot hold it."""
        if name not in self._entries:
            self._file.write(b"\0" * (-self._file.tell() % ALIGNMENT))
            raw = _rounded(name, values, number).contiguous().view(torch.uint8).numpy()
            self._entries[name] = (self._file.tell(), raw.nbytes)
            self._file.write(raw.data)
        offset, length = self._entries[name]
        proto = TensorProto(name=name, data_type=number.onnx, dims=shape, data_location=TensorProto.EXTERNAL)
        for key, value in {"location": self._name, "offset": offset, "length": length}.items():
            proto.external_data.add(key=key, value=str(value))
        return proto


def _rounded(name: str, values: Tensor, number: Number) -> Tensor:
    rounded = values.detach().to(number.torch)
    if not torch.isfinite(rounded).all():
        largest, limit = values.abs().max().item(), torch.finfo(number.torch).max
        raise CheckpointError(f"weight {name} reaches {largest:.3g}, but {str(number.torch).removeprefix('torch.')} ends at {limit:.3g}")
    return rounded


class GraphBuilder:
    """Nodes and initializers in the making; values are passed around by name.
    Nodes are named PATH/OPERATOR after the module they come from, so that a profile or an error says where it is.

    compute: the type of convolutions and matrix products. What is sensitive stays in float32: `low` and `full` mark the borders
    between the two, and add nothing where both are float32.
    """

    def __init__(self, weights: WeightsFile, compute: Number = FP32) -> None:
        self._weights = weights
        self._compute = compute
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
        """A float32 weight in the shared file, under its state-dict name, reshaped on the way if `shape` says so."""
        if name not in self._initializers:
            self._initializers[name] = self._weights.add(name, tensor, shape or tuple(tensor.shape), FP32)
        return name

    def low_weight(self, name: str, tensor: Tensor) -> str:
        """A weight in the shared file, in the type of computation."""
        if name not in self._initializers:
            self._initializers[name] = self._weights.add(name, tensor, tuple(tensor.shape), self._compute)
        return name

    def low(self, value: str, at: str) -> str:
        """A float32 value in the type of computation."""
        return value if self._compute is FP32 else self.op("Cast", value, at=at, to=self._compute.onnx)

    def full(self, value: str, at: str) -> str:
        """A value of the type of computation in float32."""
        return value if self._compute is FP32 else self.op("Cast", value, at=at, to=TensorProto.FLOAT)

    def build(self, name: str, inputs: dict[str, onnx.TypeProto], outputs: dict[str, onnx.TypeProto], result: str) -> onnx.GraphProto:
        """The finished graph; the value `result`, computed by the last node, becomes its one output."""
        assert self._nodes[-1].output[0] == result
        (self._nodes[-1].output[0],) = outputs
        ends = [[onnx.ValueInfoProto(name=value, type=kind) for value, kind in values.items()] for values in (inputs, outputs)]
        return helper.make_graph(self._nodes, name, ends[0], ends[1], list(self._initializers.values()))
