"""Compare a network's activations with the largest float16 number. Explains why some tensors stay float32."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import TensorProto

from ..runtime.storage.manifest import DIRECTIONS
from .ranges import FP16_MAX, Calibration

# Why a tensor stays float32 in a 16-bit graph.
_CONDITIONING = "depends only on t, u and the label: 250 log t needs 24 bits"
_PRECONDITIONING = "preconditioning: c_out multiplies errors by up to 79"
_ATTENTION = "the norms by which cosine attention divides, and the scale of queries"
_NORM = "normalisation, its scale, shift and SiLU: sums of thousands of terms"


@dataclass(frozen=True)
class Activation:
    """The largest activation of one tensor of the network."""

    tensor: str
    # The largest |value| over the played schedules of both directions.
    largest: float
    # Bits of its type in 16-bit graphs of the network: 16 or 32.
    bits: int
    # Why it has 32 bits; "" otherwise.
    why: str

    @property
    def headroom(self) -> float:
        """The factor by which the activation may grow before float16 overflows."""
        return FP16_MAX / self.largest if self.largest else float("inf")


def activations(graphs: Sequence[onnx.ModelProto], calibration: Calibration) -> list[Activation]:
    """Return every measured activation, in the order of the graph.

    graphs: the 16-bit graphs of the network, in both directions; the values of weights are not needed.
    """
    largest: dict[str, float] = {}
    for direction in DIRECTIONS:
        for name, (low, high) in calibration.ranges[direction].items():
            largest[name] = max(largest.get(name, 0.0), abs(low), abs(high))
    reasons: dict[str, str] = {}
    for model in graphs:
        graph = onnx.shape_inference.infer_shapes(model).graph
        reasons |= _reasons(graph, _types(graph))
    return [
        Activation(name, value, 32 if name in reasons else 16, reasons.get(name, ""))
        for name, value in largest.items()
    ]


def overflowing(measured: Sequence[Activation]) -> list[Activation]:
    """Return the activations that overflow in a float16 graph, the largest first."""
    too_large = [
        activation for activation in measured if activation.bits != 32 and activation.largest > FP16_MAX
    ]
    return sorted(too_large, key=lambda activation: -activation.largest)


def save_picture(measured: Sequence[Activation], path: Path) -> None:
    """Plot the largest |value| of each tensor against its position in the graph, and save it as a PNG."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(9, 4), layout="constrained")
    series = {
        16: ("16 bits", "tab:blue"),
        32: ("float32 in every graph", "tab:orange"),
    }
    for bits, (label, color) in series.items():
        points = [
            (position, activation.largest)
            for position, activation in enumerate(measured)
            if activation.bits == bits and activation.largest
        ]
        if points:
            positions, values = zip(*points, strict=True)
            axes.scatter(positions, values, s=8, color=color, label=f"{label} ({len(points)} tensors)")
    axes.axhline(FP16_MAX, color="tab:red", linewidth=1, label="float16 ends at 65504")
    axes.set(yscale="log", xlabel="tensor, from input to output", ylabel="largest |activation|")
    figure.legend(loc="outside upper center", ncols=3)
    figure.savefig(path, format="png", dpi=150)
    plt.close(figure)


def _types(graph: onnx.GraphProto) -> dict[str, int]:
    """Return tensor → ONNX element type, for the tensors whose types are known."""
    values = (*graph.input, *graph.value_info, *graph.output)
    return {value.name: value.type.tensor_type.elem_type for value in values}


def _reasons(graph: onnx.GraphProto, types: Mapping[str, int]) -> dict[str, str]:
    """Return float32 tensor → why it is float32, for one 16-bit graph."""
    attention_paths = {_module_path(node) for node in graph.node if node.op_type == "Softmax"}
    image_tensors = {"x", "noise"}  # extended below by all that is computed from them
    reasons = {
        value.name: _PRECONDITIONING if value.name in image_tensors else _CONDITIONING
        for value in graph.input
    }
    for node in graph.node:
        if image_tensors & set(node.input):
            image_tensors |= set(node.output)
        for name in node.output:
            if types.get(name) == TensorProto.FLOAT:
                reasons[name] = _reason(_module_path(node), name in image_tensors, attention_paths)
    return reasons


def _reason(path: str, on_image: bool, attention_paths: set[str]) -> str:
    if not on_image:
        return _CONDITIONING
    if path in ("preconditioning", "noise"):
        return _PRECONDITIONING
    return _ATTENTION if path in attention_paths else _NORM


def _module_path(node: onnx.NodeProto) -> str:
    """The path of the torch module that a node belongs to; nodes are named PATH/OPERATOR."""
    return node.name.split("/")[0]
