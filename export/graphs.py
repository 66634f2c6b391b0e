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

from ..model.preconditioning import ConsistencyModel
from ..runtime.schedule import SIGMA_DATA, SIGMA_MAX, SIGMA_MIN
from ..runtime.storage.manifest import DIRECTIONS
from .network_graph import consistency_model
from .weights import WeightsFile
from .writer import BF16, FP16, FP32, GraphBuilder, Number

TYPES = {"fp32": FP32, "fp16": FP16, "bf16": BF16}
BF16_OPSET = 22  # the first with bfloat16 convolutions


def write_graphs(
    model: ConsistencyModel, folder: Path, precision: str = "fp32", opset: int = 18
) -> dict[str, str]:
    """Write the two graphs of a floating-point precision and their weights file; returns direction → file name.

    The types are in the graph: what computes in 16 bits and what stays float32 is in network_graph.py. Inputs and outputs are float32.
    Both pass onnx.checker's full check. Raises CheckpointError if a weight does not fit the type.
    """
    names = graph_names(precision)
    opset = max(opset, BF16_OPSET) if precision == "bf16" else opset
    with WeightsFile(folder / weights_name(precision)) as weights:
        for direction, name in names.items():
            onnx.save(_model_proto(model, direction, weights, TYPES[precision], opset), folder / name)
    for name in names.values():
        onnx.checker.check_model(folder / name, full_check=True)
    return names


def graph_names(precision: str) -> dict[str, str]:
    """Direction → file name in a bundle: forward.onnx, forward.fp16.onnx, …"""
    return {direction: f"{direction}{_infix(precision)}.onnx" for direction in DIRECTIONS}


def weights_name(precision: str) -> str:
    """File name in a bundle: weights.bin, weights.fp16.bin, …"""
    return f"weights{_infix(precision)}.bin"


def _infix(precision: str) -> str:
    return "" if precision == "fp32" else f".{precision}"


def _model_proto(
    model: ConsistencyModel, direction: str, weights: WeightsFile, compute: Number, opset: int
) -> onnx.ModelProto:
    image = helper.make_tensor_type_proto(TensorProto.FLOAT, ["N", *model.config.sample_shape])
    level = helper.make_tensor_type_proto(TensorProto.FLOAT, ["N"])
    builder = GraphBuilder(weights, compute)
    inputs, x = {"x": image}, "x"
    if direction == "inverse":
        inputs["noise"] = image
        x = builder.op("Add", "x", "noise", at="noise")
    inputs |= {"t": level, "u": level}
    if model.config.num_classes is not None:
        inputs["label"] = helper.make_tensor_type_proto(TensorProto.INT64, ["N"])
    result = consistency_model(builder, model, x, "t", "u", "label" if "label" in inputs else None)
    graph = builder.build(direction, inputs, {"x_u": image}, result)
    proto = helper.make_model(
        graph, producer_name="bcm_edge", opset_imports=[helper.make_opsetid("", opset)], ir_version=10
    )
    facts = {
        "direction": direction,
        "levels": [SIGMA_MIN, SIGMA_MAX],
        "sigma_data": SIGMA_DATA,
        "config": model.config.to_json(),
    }
    helper.set_model_props(proto, {f"bcm_edge.{key}": json.dumps(value) for key, value in facts.items()})
    return proto
