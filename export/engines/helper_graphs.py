"""Write two small graphs that a GPU needs besides those of a model. They work for images of any size.

    add_noise(x, noise) → sum       an injection before a move towards the image, whose graph has no addition
    to_uint8(x) → pixels, total     pixels: uint8, round((clip(x, -1, 1) + 1) · 127.5), half to even, which is
                                    what runtime/pixels.py computes
                                    total: the sum of each image's values, which is finite if all values are;
                                    pixels cannot show NaN or infinity

The graphs are stored beside this file, since a device that builds engines has no `onnx`. To write them again:

    python -m bcm_edge.export.engines.helper_graphs
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

IMAGE = ("N", "C", "H", "W")


def add_noise() -> onnx.ModelProto:
    """Return the graph x + noise; both are float32 [N, C, H, W]."""
    nodes = [helper.make_node("Add", ["x", "noise"], ["sum"], name="add_noise")]
    inputs = {"x": _float32(IMAGE), "noise": _float32(IMAGE)}
    return _model("add_noise", nodes, inputs, {"sum": _float32(IMAGE)}, {})


def to_uint8() -> onnx.ModelProto:
    """Return the graph from an image, float32 [N, C, H, W] in [-1, 1], to its pixels."""
    nodes = [
        helper.make_node("ReduceSum", ["x", "axes"], ["total"], name="total", keepdims=0),
        helper.make_node("Clip", ["x", "low", "high"], ["clipped"], name="clip"),
        helper.make_node("Add", ["clipped", "high"], ["positive"], name="shift"),
        helper.make_node("Mul", ["positive", "scale"], ["scaled"], name="scale"),
        helper.make_node("Round", ["scaled"], ["rounded"], name="round"),
        helper.make_node("Cast", ["rounded"], ["pixels"], name="cast", to=TensorProto.UINT8),
    ]
    constants = {
        "low": np.float32(-1),
        "high": np.float32(1),
        "scale": np.float32(127.5),
        "axes": np.array([1, 2, 3]),
    }
    outputs = {
        "pixels": helper.make_tensor_type_proto(TensorProto.UINT8, IMAGE),
        "total": _float32(("N",)),
    }
    return _model("to_uint8", nodes, {"x": _float32(IMAGE)}, outputs, constants)


def _float32(shape: tuple[str, ...]) -> onnx.TypeProto:
    return helper.make_tensor_type_proto(TensorProto.FLOAT, shape)


def _model(
    name: str,
    nodes: list[onnx.NodeProto],
    inputs: dict[str, onnx.TypeProto],
    outputs: dict[str, onnx.TypeProto],
    constants: dict[str, np.generic | np.ndarray],
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        name,
        [onnx.ValueInfoProto(name=value, type=type_) for value, type_ in inputs.items()],
        [onnx.ValueInfoProto(name=value, type=type_) for value, type_ in outputs.items()],
        [numpy_helper.from_array(np.asarray(values), constant) for constant, values in constants.items()],
    )
    model = helper.make_model(
        graph, producer_name="bcm_edge", opset_imports=[helper.make_opsetid("", 18)], ir_version=10
    )
    onnx.checker.check_model(model, full_check=True)
    return model


if __name__ == "__main__":
    for model in (add_noise(), to_uint8()):
        onnx.save(model, Path(__file__).parent / f"{model.graph.name}.onnx")
