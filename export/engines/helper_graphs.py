"""The two small graphs that a chain on a GPU needs besides a model's own, for images of any size.

    add_noise(x, noise) → sum            an injection before a move towards the image, whose graph has no addition in it
    to_uint8(x) → pixels, total          pixels = round((clip(x, -1, 1) + 1) · 127.5), half to even, as runtime/pictures/images.py has it;
                                         total = Σ x of each image: finite if the image is, which pixels do not tell

They lie beside this file as .onnx, since a device that builds engines has no `onnx`; this module, run with `python -m`, writes them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

IMAGE = ("N", "C", "H", "W")


def add_noise() -> onnx.ModelProto:
    nodes = [helper.make_node("Add", ["x", "noise"], ["sum"], name="add_noise")]
    return _model(
        "add_noise", nodes, {"x": _floats(IMAGE), "noise": _floats(IMAGE)}, {"sum": _floats(IMAGE)}, {}
    )


def to_uint8() -> onnx.ModelProto:
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
    outputs = {"pixels": helper.make_tensor_type_proto(TensorProto.UINT8, IMAGE), "total": _floats(("N",))}
    return _model("to_uint8", nodes, {"x": _floats(IMAGE)}, outputs, constants)


def _floats(shape: tuple[str, ...]) -> onnx.TypeProto:
    return helper.make_tensor_type_proto(TensorProto.FLOAT, shape)


def _model(
    name: str,
    nodes: list[onnx.NodeProto],
    inputs: dict[str, onnx.TypeProto],
    outputs: dict[str, onnx.TypeProto],
    constants: dict[str, np.generic | np.ndarray],
) -> onnx.ModelProto:
    ends = [
        [onnx.ValueInfoProto(name=value, type=kind) for value, kind in values.items()]
        for values in (inputs, outputs)
    ]
    initializers = [
        numpy_helper.from_array(np.asarray(value), constant) for constant, value in constants.items()
    ]
    graph = helper.make_graph(nodes, name, ends[0], ends[1], initializers)
    model = helper.make_model(
        graph, producer_name="bcm_edge", opset_imports=[helper.make_opsetid("", 18)], ir_version=10
    )
    onnx.checker.check_model(model, full_check=True)
    return model


if __name__ == "__main__":
    for model in (add_noise(), to_uint8()):
        onnx.save(model, Path(__file__).parent / f"{model.graph.name}.onnx")
