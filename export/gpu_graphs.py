"""Write the 8-bit graphs for GPUs: the float16 graphs with Quantize/Dequantize pairs before convolutions.

In the int8 graphs (int8.py) everything outside convolutions is float32, which is fast on a CPU. On a GPU that
doubles the memory traffic of all other operators. In these graphs it is float16. There are two precisions:

    int8-fp16   int8, scale = largest |value| / 127
    fp8         float8 E4M3, scale = largest |value| / 448

Weights have a scale per output channel, activations one per tensor. Scales are float16, so Dequantize returns
float16, which is the type of the bias, and a strongly typed TensorRT network needs no cast before the
convolution. The output of a convolution is not quantised: TensorRT fuses the scales into the convolution,
which then writes float16.

The ranges of activations were measured on the float32 graphs. The two graphs have different tensors where
values are cast, but their convolutions have the same names.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from ..calibration.ranges import Calibration, Ranges
from ..errors import BundleError, CalibrationError
from ..runtime.storage.bundle import Bundle
from .graphs import graph_names, weights_name
from .int8 import check_layers, layer_of, load_values, move_weights
from .weights import WeightsFile

OPSET = 19  # the first opset with float16 scales and float8


@dataclass(frozen=True)
class _Number:
    """An 8-bit number."""

    onnx: int
    torch: torch.dtype
    largest: float
    # A convolution with fewer input or output channels stays float16.
    fewest_channels: int = 1


# TensorRT's float8 convolutions need 16 input and 16 output channels; NVIDIA's Model Optimizer also leaves
# out convolutions with fewer.
NUMBERS = {
    "int8-fp16": _Number(TensorProto.INT8, torch.int8, 127.0),
    "fp8": _Number(TensorProto.FLOAT8E4M3FN, torch.float8_e4m3fn, 448.0, fewest_channels=16),
}


def write_gpu_graphs(
    bundle: Bundle, precision: str, calibration: Calibration, float16_layers: Collection[str], folder: Path
) -> dict[str, str]:
    """Write the two graphs of int8-fp16 or fp8 and their weights file; return direction → file name.

    float16_layers: the layers that stay float16, as int8.layers names them.

    Raises BundleError if the bundle has no fp32 or no fp16 graphs. Raises CalibrationError if the calibration
    belongs to another model, or if `float16_layers` names an unknown layer or all layers.
    """
    check_layers(bundle, float16_layers)
    names = graph_names(precision)
    with WeightsFile(folder / weights_name(precision)) as weights:
        for direction, graph in float16_graphs(bundle, precision).items():
            proto = with_pairs(bundle, precision, calibration, float16_layers, direction)
            move_weights(proto, graph.parent, weights)
            onnx.save(proto, folder / names[direction])
    for name in names.values():
        onnx.checker.check_model(folder / name, full_check=True)
    return names


def float16_graphs(bundle: Bundle, precision: str) -> dict[str, Path]:
    """Return the float16 graphs of a bundle. Those of `precision` are made from them.

    Raises BundleError if the bundle has no float16 graphs.
    """
    try:
        return bundle.graphs("fp16")
    except BundleError as error:
        raise BundleError(f"{precision} graphs are made from fp16 graphs; {error}") from None


def with_pairs(
    bundle: Bundle,
    precision: str,
    calibration: Calibration,
    float16_layers: Collection[str],
    direction: str,
) -> onnx.ModelProto:
    """Return the float16 graph of one direction with Quantize/Dequantize pairs.

    It contains the 8-bit weights. All others remain in the weights file of the float16 graphs.
    """
    calibration.check_fits(bundle)
    exact = _Exact(bundle.graphs("fp32")[direction])
    model = onnx.load(float16_graphs(bundle, precision)[direction], load_external_data=False)
    pairs = _Pairs(NUMBERS[precision], calibration.ranges[direction], direction)
    nodes = []
    for node in model.graph.node:
        if node.op_type == "Conv" and layer_of(node) not in float16_layers:
            nodes += pairs.before(node, exact)
        nodes.append(node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    read = {name for node in nodes for name in node.input}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in read]
    del model.graph.initializer[:]
    model.graph.initializer.extend([*kept, *pairs.tensors])
    opset = max(model.opset_import[0].version, OPSET)
    model.opset_import[0].version = opset
    return model


class _Exact:
    """The convolutions of a float32 graph."""

    def __init__(self, path: Path) -> None:
        graph = onnx.load(path, load_external_data=False).graph
        self._folder = path.parent
        self._tensors = {tensor.name: tensor for tensor in graph.initializer}
        self._convolutions = {node.name: node for node in graph.node if node.op_type == "Conv"}

    def input(self, name: str) -> str:
        """Return the tensor that the convolution of this name reads."""
        return self._convolutions[name].input[0]

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of the weight of a convolution."""
        return tuple(self._tensors[self._convolutions[name].input[1]].dims)

    def weight(self, name: str) -> np.ndarray:
        """Return the weight of a convolution, read from its file."""
        tensor = TensorProto()
        tensor.CopyFrom(self._tensors[self._convolutions[name].input[1]])
        load_values(tensor, self._folder)
        return numpy_helper.to_array(tensor)


class _Pairs:
    """Makes the Quantize/Dequantize pairs of a graph, and collects their tensors."""

    def __init__(self, number: _Number, ranges: Ranges, direction: str) -> None:
        self.tensors: list[TensorProto] = []
        self._number = number
        self._ranges = ranges
        self._direction = direction

    def before(self, node: onnx.NodeProto, exact: _Exact) -> list[onnx.NodeProto]:
        """Return the nodes that quantise the input and the weight of a convolution, and make it read them.

        The list is empty for a convolution that has too few channels.
        """
        if min(exact.shape(node.name)[:2]) < self._number.fewest_channels:
            return []
        layer, activation = layer_of(node), exact.input(node.name)
        if activation not in self._ranges:
            raise CalibrationError(
                f"this calibration has no range for {activation} of the {self._direction} graph"
            )
        weight, scales = self._quantised(exact.weight(node.name))
        at = f"{layer}/input"
        scale = _scales(np.array(max(map(abs, self._ranges[activation]))), self._number.largest)
        parameters = [self._array(f"{at}_scale", scale), self._zeros(f"{at}_zero", ())]
        weight_parameters = [
            self._array(f"{layer}.weight_scale", scales),
            self._zeros(f"{layer}.weight_zero", scales.shape),
        ]
        quantised_weight = self._bytes(f"{layer}.weight_quantised", weight)
        nodes = [
            _node("QuantizeLinear", [node.input[0], *parameters], at),
            _node("DequantizeLinear", [f"{at}/QuantizeLinear", *parameters], at),
            _node("DequantizeLinear", [quantised_weight, *weight_parameters], f"{layer}.weight", axis=0),
        ]
        node.input[0], node.input[1] = (nodes[index].output[0] for index in (1, 2))
        return nodes

    def _quantised(self, weight: np.ndarray) -> tuple[torch.Tensor, np.ndarray]:
        """Return an 8-bit weight and the scales of its output channels."""
        largest = np.abs(weight).reshape(len(weight), -1).max(axis=1)
        scales = _scales(largest, self._number.largest)
        in_steps = torch.from_numpy(weight / scales.astype(np.float32).reshape(-1, 1, 1, 1))
        if not self._number.torch.is_floating_point:
            in_steps = in_steps.round()
        limit = self._number.largest
        return in_steps.clamp(-limit, limit).to(self._number.torch), scales

    def _array(self, name: str, values: np.ndarray) -> str:
        self.tensors.append(numpy_helper.from_array(values, name))
        return name

    def _zeros(self, name: str, shape: tuple[int, ...]) -> str:
        return self._bytes(name, torch.zeros(shape, dtype=self._number.torch))

    def _bytes(self, name: str, values: torch.Tensor) -> str:
        raw = values.contiguous().view(torch.uint8).numpy().tobytes()
        self.tensors.append(helper.make_tensor(name, self._number.onnx, values.shape, raw, raw=True))
        return name


def _node(operator: str, inputs: list[str], at: str, **attributes: Any) -> onnx.NodeProto:
    name = f"{at}/{operator}"
    return helper.make_node(operator, inputs, [name], name=name, **attributes)


def _scales(largest: np.ndarray, limit: float) -> np.ndarray:
    """Return float16 scales with which `largest` is at most `limit` steps.

    They are rounded up, so that nothing is cut off, and are never 0.
    """
    exact = largest / limit
    nearest = exact.astype(np.float16)
    above = np.nextafter(nearest, np.float16(np.inf), dtype=np.float16)
    return np.where(nearest < exact, above, np.maximum(nearest, np.finfo(np.float16).smallest_subnormal))
