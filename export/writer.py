"""Writing ONNX by hand: a graph under construction."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from ..errors import CheckpointError
from .weights import WeightsFile


@dataclass(frozen=True)
class Number:
    """A floating-point type: its name in ONNX and in torch."""

    onnx: int
    torch: torch.dtype


FP32 = Number(TensorProto.FLOAT, torch.float32)
FP16 = Number(TensorProto.FLOAT16, torch.float16)
BF16 = Number(TensorProto.BFLOAT16, torch.bfloat16)


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
        return self._stored(name, tensor, shape or tuple(tensor.shape), FP32)

    def low_weight(self, name: str, tensor: Tensor) -> str:
        """A weight in the shared file, in the type of computation. Raises CheckpointError if that cannot hold it."""
        return self._stored(name, tensor, tuple(tensor.shape), self._compute)

    def low(self, value: str, at: str) -> str:
        """A float32 value in the type of computation."""
        return value if self._compute is FP32 else self.op("Cast", value, at=at, to=self._compute.onnx)

    def full(self, value: str, at: str) -> str:
        """A value of the type of computation in float32."""
        return value if self._compute is FP32 else self.op("Cast", value, at=at, to=TensorProto.FLOAT)

    def build(
        self, name: str, inputs: dict[str, onnx.TypeProto], outputs: dict[str, onnx.TypeProto], result: str
    ) -> onnx.GraphProto:
        """The finished graph; the value `result`, computed by the last node, becomes its one output."""
        assert self._nodes[-1].output[0] == result
        (self._nodes[-1].output[0],) = outputs
        ends = [
            [onnx.ValueInfoProto(name=value, type=kind) for value, kind in values.items()]
            for values in (inputs, outputs)
        ]
        return helper.make_graph(self._nodes, name, ends[0], ends[1], list(self._initializers.values()))

    def _stored(self, name: str, tensor: Tensor, shape: tuple[int, ...], number: Number) -> str:
        if name not in self._initializers:
            rounded = tensor.detach().to(number.torch)
            if not torch.isfinite(rounded).all():
                largest, limit = tensor.abs().max().item(), torch.finfo(number.torch).max
                kind = str(number.torch).removeprefix("torch.")
                raise CheckpointError(
                    f"weight {name} reaches {largest:.3g}, but {kind} ends at {limit:.3g}; export another precision"
                )
            raw = rounded.contiguous().view(torch.uint8).numpy()
            self._initializers[name] = self._weights.add(name, raw, shape, number.onnx)
        return name
