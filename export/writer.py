"""Build an ONNX graph node by node."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from ..errors import CheckpointError
from .weights import Weights


@dataclass(frozen=True)
class Number:
    """A floating-point type, as ONNX and as torch name it."""

    onnx: int
    torch: torch.dtype


FP32 = Number(TensorProto.FLOAT, torch.float32)
FP16 = Number(TensorProto.FLOAT16, torch.float16)
BF16 = Number(TensorProto.BFLOAT16, torch.bfloat16)


class GraphBuilder:
    """A graph under construction. Methods take and return the names of values.

    Nodes are named PATH/OPERATOR or PATH/NAME, where PATH is the torch module they belong to, so that
    profiles and error messages can be read.

    Convolutions and matrix products compute in one type, `compute`, and normalisations in another, `norms`.
    Values that need the precision stay float32. `low` and `full` convert between `compute` and float32.
    Conversions add no node if both types are the same.
    """

    def __init__(self, weights: Weights, compute: Number = FP32, norms: Number = FP32) -> None:
        self.compute = compute
        self.norms = norms
        self._weights = weights
        self._nodes: list[onnx.NodeProto] = []
        self._uses: Counter[str] = Counter()
        self._initializers: dict[str, TensorProto] = {}
        # Name of a weight that is stored in another type than it is used in → the value in that type.
        self._converted: dict[str, str] = {}

    def op(
        self, operator: str, *inputs: str, at: str, name: str = "", outputs: int = 1, **attributes: Any
    ) -> str:
        """Add a node of an ONNX operator and return the name of its first output.

        Further outputs are named NAME:1, NAME:2, … at: the path of the torch module. name: in place of the
        operator in the name of the node.
        """
        path = f"{at}/{name or operator}"
        self._uses[path] += 1
        value = path if self._uses[path] == 1 else f"{path}_{self._uses[path]}"
        values = [value, *(f"{value}:{i}" for i in range(1, outputs))]
        self._nodes.append(helper.make_node(operator, inputs, values, name=value, **attributes))
        return value

    def constant(self, value: object, dtype: type = np.float32) -> str:
        """Add a small constant to the graph and return its name. Equal constants are added once."""
        array = np.asarray(value, dtype)
        shape = "x".join(map(str, array.shape))
        values = array.ravel()[:1] if (array == array.flat[0]).all() else array.ravel()
        numbers = "_".join(map(str, values))
        name = f"const_{array.dtype}_{shape}_{numbers}"
        self._initializers.setdefault(name, numpy_helper.from_array(array, name))
        return name

    def norm_constant(self, value: object) -> str:
        """Add a small constant in the type of normalisations and return its name."""
        return self.constant(value, helper.tensor_dtype_to_np_dtype(self.norms.onnx).type)

    def weight(self, name: str, tensor: Tensor, shape: tuple[int, ...] | None = None) -> str:
        """Add a float32 weight under its state-dict name, reshaped to `shape` if that is given."""
        return self._stored(name, tensor, shape or tuple(tensor.shape), FP32)

    def low_weight(self, name: str, tensor: Tensor) -> str:
        """Add a weight in the compute type. Raises CheckpointError if a value is too large for that type."""
        return self._stored(name, tensor, tuple(tensor.shape), self.compute)

    def norm_weight(self, name: str, tensor: Tensor, shape: tuple[int, ...]) -> str:
        """Add a weight in the type of normalisations, reshaped.

        Raises CheckpointError if a value is too large for that type.
        """
        return self._stored(name, tensor, shape, self.norms)

    def joined_weight(self, name: str, parts: Mapping[str, Tensor]) -> str:
        """Add float32 weights, joined along axis 0, as one value of this name.

        parts: state-dict name → weight. Where the weights are stored one by one, as in a checkpoint, a Concat
        joins them, which runtimes compute once when they load the graph.
        """
        if self._weights.joins:
            return self.weight(name, torch.cat(list(parts.values())))
        return self.op("Concat", *(self.weight(*part) for part in parts.items()), at=name, axis=0)

    def low(self, value: str, at: str) -> str:
        """Convert a float32 value to the compute type."""
        return self.convert(value, FP32, self.compute, at)

    def full(self, value: str, at: str) -> str:
        """Convert a value of the compute type to float32."""
        return self.convert(value, self.compute, FP32, at)

    def convert(self, value: str, source: Number, target: Number, at: str) -> str:
        """Convert a value of one type to another."""
        return value if source is target else self.op("Cast", value, at=at, to=target.onnx)

    def build(
        self, name: str, inputs: dict[str, onnx.TypeProto], outputs: dict[str, onnx.TypeProto], result: str
    ) -> onnx.GraphProto:
        """Return the finished graph. `result`, the value of the last node, is renamed to the one output."""
        last = self._nodes[-1]
        assert last.output[0] == result
        (last.output[0],) = outputs
        return helper.make_graph(
            self._nodes,
            name,
            [onnx.ValueInfoProto(name=value, type=type_) for value, type_ in inputs.items()],
            [onnx.ValueInfoProto(name=value, type=type_) for value, type_ in outputs.items()],
            list(self._initializers.values()),
        )

    def _stored(self, name: str, tensor: Tensor, shape: tuple[int, ...], number: Number) -> str:
        if name not in self._initializers:
            rounded = tensor.detach().to(number.torch)
            if not torch.isfinite(rounded).all():
                value = tensor.abs().max().item()
                limit = torch.finfo(number.torch).max
                type_name = str(number.torch).removeprefix("torch.")
                raise CheckpointError(
                    f"weight {name} has values up to {value:.3g}, "
                    f"but the largest {type_name} is {limit:.3g}; export another precision"
                )
            raw = rounded.contiguous().view(torch.uint8).numpy()
            self._initializers[name] = self._weights.add(name, raw, shape, number.onnx)
            if self._initializers[name].data_type != number.onnx:
                self._converted[name] = self.op("Cast", name, at=name, to=number.onnx)
        return self._converted.get(name, name)
