"""How near a network's activations come to the end of float16: a table, a picture, and why some tensors stay in float32."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import TensorProto

from ..runtime.storage.bundle import Bundle
from ..runtime.storage.manifest import DIRECTIONS
from .ranges import FP16_MAX, Calibration

_CONDITIONING = "hangs on t, u and label alone: 250 log t needs 24 bits"
_PRECONDITIONING = "preconditioning: c_out multiplies errors by up to 79"
_ATTENTION = "softmax and the norms before it"
_NORM = "normalisation, its scale, shift and SiLU: sums of thousands of terms"


@dataclass(frozen=True)
class Activation:
    """One tensor. largest: |value| over the trajectories of both directions; bits: of its type in the bundle's 16-bit graphs, None if the
    bundle has none of those; why: the reason for 32, else ""."""

    tensor: str
    largest: float
    bits: int | None
    why: str

    @property
    def headroom(self) -> float:
        """How many times larger it may get before float16 ends."""
        return FP16_MAX / self.largest if self.largest else float("inf")


def activations(bundle: Bundle, calibration: Calibration) -> list[Activation]:
    """Every measured activation, in the graph's order."""
    largest: dict[str, float] = {}
    for direction in DIRECTIONS:
        for name, pair in calibration.ranges[direction].items():
            largest[name] = max(largest.get(name, 0.0), *map(abs, pair))
    reasons = _float32_tensors(bundle)
    if reasons is None:
        return [Activation(name, value, None, "") for name, value in largest.items()]
    return [
        Activation(name, value, 32 if name in reasons else 16, reasons.get(name, ""))
        for name, value in largest.items()
    ]


def overflowing(measured: Sequence[Activation]) -> list[Activation]:
    """Those that a float16 graph cannot hold, the largest first."""
    return sorted((a for a in measured if a.bits != 32 and a.largest > FP16_MAX), key=lambda a: -a.largest)


def save_picture(measured: Sequence[Activation], path: Path) -> None:
    """Largest |activation| against the tensor's position in the graph, with the end of float16; a PNG."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(9, 4), layout="constrained")
    kinds = {
        16: ("16 bits", "tab:blue"),
        32: ("float32 in every graph", "tab:orange"),
        None: ("activations", "tab:blue"),
    }
    for bits, (label, color) in kinds.items():
        points = [
            (position, a.largest) for position, a in enumerate(measured) if a.bits == bits and a.largest
        ]
        if points:
            axes.scatter(
                *zip(*points, strict=True), s=8, color=color, label=f"{label} ({len(points)} tensors)"
            )
    axes.axhline(FP16_MAX, color="tab:red", linewidth=1, label="float16 ends at 65504")
    axes.set(yscale="log", xlabel="tensor, from input to output", ylabel="largest |activation|")
    figure.legend(loc="outside upper center", ncols=3)
    figure.savefig(path, format="png", dpi=150)
    plt.close(figure)


def _float32_tensors(bundle: Bundle) -> dict[str, str] | None:
    """Tensors that stay float32 in the bundle's 16-bit graphs → why; None if it has no such graphs."""
    precision = next((p for p in ("fp16", "bf16") if p in bundle.precisions), None)
    if precision is None:
        return None
    reasons: dict[str, str] = {}
    for path in bundle.graphs(precision).values():
        graph = onnx.shape_inference.infer_shapes(onnx.load(path, load_external_data=False)).graph
        types = {
            value.name: value.type.tensor_type.elem_type
            for value in (*graph.input, *graph.value_info, *graph.output)
        }
        attention = {node.name.split("/")[0] for node in graph.node if node.op_type == "Softmax"}
        on_image = {"x", "noise"}
        for value in graph.input:
            reasons[value.name] = _PRECONDITIONING if value.name in on_image else _CONDITIONING
        for node in graph.node:
            if on_image & set(node.input):
                on_image |= set(node.output)
            for name in node.output:
                if types.get(name) == TensorProto.FLOAT:
                    reasons[name] = _reason(node, name in on_image, attention)
    return reasons


def _reason(node: onnx.NodeProto, on_image: bool, attention: set[str]) -> str:
    place = node.name.split("/")[0]
    if not on_image:
        return _CONDITIONING
    if place in ("preconditioning", "noise"):
        return _PRECONDITIONING
    return _ATTENTION if place in attention else _NORM
