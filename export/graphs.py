"""The two graphs of a model, with one set of weights on disk.

    forward(x, t, u [, label])        → x_u = f(x, t, u)
    inverse(x, noise, t, u [, label]) → x_u = f(x + noise, t, u)

x, noise, x_u: float32 [N, C, H, W]; t, u: float32 [N]; label: int64 [N]; N is dynamic. The two differ by one addition: every
inversion begins by adding a little noise, and a chain of moves on a device should need no other kernel.
"""

from __future__ import annotations

import json
from pathlib import Path

import onnx
from onnx import TensorProto, helper

from ..model.preconditioning import SIGMA_DATA, ConsistencyModel
from ..runtime.bundle import DIRECTIONS
from ..runtime.schedule import SIGMA_MAX, SIGMA_MIN
from .network_graph import consistency_model
from .writer import GraphBuilder, WeightsFile

WEIGHTS = "weights.bin"


def write_graphs(model: ConsistencyModel, folder: Path, opset: int = 18) -> dict[str, str]:
    """Write forward.onnx, inverse.onnx and their weights.bin; returns direction → file name. Both pass onnx.checker's full check."""
    with WeightsFile(folder / WEIGHTS) as weights:
        for direction in DIRECTIONS:
            onnx.save(_model_proto(model, direction, weights, opset), folder / f"{direction}.onnx")
    for direction in DIRECTIONS:
        onnx.checker.check_model(folder / f"{direction}.onnx", full_check=True)
    return {direction: f"{direction}.onnx" for direction in DIRECTIONS}


def _model_proto(model: ConsistencyModel, direction: str, weights: WeightsFile, opset: int) -> onnx.ModelProto:
    image = helper.make_tensor_type_proto(TensorProto.FLOAT, ["N", *model.config.sample_shape])
    level = helper.make_tensor_type_proto(TensorProto.FLOAT, ["N"])
    builder = GraphBuilder(weights)
    inputs, x = {"x": image}, "x"
    if direction == "inverse":
        inputs["noise"] = image
        x = builder.op("Add", "x", "noise", at="noise")
    inputs |= {"t": level, "u": level}
    if model.config.num_classes is not None:
        inputs["label"] = helper.make_tensor_type_proto(TensorProto.INT64, ["N"])
    result = consistency_model(builder, model, x, "t", "u", "label" if "label" in inputs else None)
    graph = builder.build(direction, inputs, {"x_u": image}, result)
    proto = helper.make_model(graph, producer_name="bcm_edge", opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    facts = {"direction": direction, "levels": [SIGMA_MIN, SIGMA_MAX], "sigma_data": SIGMA_DATA, "config": model.config.to_json()}
    helper.set_model_props(proto, {f"bcm_edge.{key}": json.dumps(value) for key, value in facts.items()})
    return proto
