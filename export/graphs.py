"""Write the two graphs of a model, which share one weights file.

    forward(x, t, u [, label])        → x_u = f(x, t, u)
    inverse(x, noise, t, u [, label]) → x_u = f(x + noise, t, u)

x, noise, x_u: float32 [N, C, H, W]. t, u: float32 [N]. label: int64 [N]. N is dynamic.

The inverse graph has one addition more. Every inversion begins by adding a little noise, and with the
addition in the graph a device needs no other kernel to play one.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn

from ..model.config import NetworkConfig
from ..model.preconditioning import ConsistencyModel
from ..runtime.schedule import SIGMA_DATA, SIGMA_MAX, SIGMA_MIN
from ..runtime.storage.manifest import DIRECTIONS
from .network_graph import consistency_model
from .weights import CheckpointFile, Weights, WeightsFile
from .writer import BF16, FP16, FP32, GraphBuilder, Number

TYPES = {"fp32": FP32, "fp16": FP16, "bf16": BF16}
FP16_NORMS = {"float32": FP32, "half": FP16}  # the types that normalisations of fp16 graphs may have
BF16_OPSET = 22  # the first opset with bfloat16 convolutions
IR_VERSION = 10


def write_graphs(
    model: ConsistencyModel,
    folder: Path,
    precision: str = "fp32",
    opset: int = 18,
    checkpoint: str | None = None,
    fp16_norms: str = "float32",
) -> dict[str, str]:
    """Write the graphs and the weights file of a floating-point precision; return direction → file name.

    Inputs and outputs are float32 in every precision. network_graph.py describes which values inside have
    16 bits. Both graphs are checked with onnx.checker. bf16 graphs have at least opset 22.

    checkpoint: the name of a safetensors file in the folder, from which the graphs load the weights of the
        model. None writes a weights file.
    fp16_norms: the type of normalisations with their scale, shift and SiLU in fp16 graphs: "float32", or
        "half", which needs no casts around them.

    Raises CheckpointError if a weight is too large for the precision, or not in the checkpoint.
    """
    names = graph_names(precision)
    if precision == "bf16":
        opset = max(opset, BF16_OPSET)
    file: AbstractContextManager[Weights]
    if checkpoint:
        file = nullcontext(CheckpointFile(folder / checkpoint))
    else:
        file = WeightsFile(folder / weights_name(precision))
    types = TYPES[precision], FP16_NORMS[fp16_norms] if precision == "fp16" else FP32
    with file as weights:
        for direction, name in names.items():
            proto = _model_proto(model, direction, weights, types, opset)
            onnx.save(proto, folder / name)
    for name in names.values():
        onnx.checker.check_model(folder / name, full_check=True)
    return names


class _NoWeights:
    """Takes the place of a weights file where only the types and shapes of a graph are needed."""

    joins = True

    def add(self, name: str, values: np.ndarray, shape: Sequence[int], data_type: int) -> TensorProto:
        """Return an initializer without values."""
        return TensorProto(name=name, data_type=data_type, dims=shape)


def graph_layouts(config: NetworkConfig) -> list[onnx.ModelProto]:
    """Return the float16 graphs of both directions, without the values of their weights."""
    with torch.device("meta"):
        model = ConsistencyModel(config)
    # All weights are views of the same zeros.
    zeros = torch.zeros(max(tensor.numel() for tensor in (*model.parameters(), *model.buffers())))
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            setattr(module, name, nn.Parameter(_view(zeros, parameter), requires_grad=False))
        for name, buffer in list(module.named_buffers(recurse=False)):
            setattr(module, name, _view(zeros, buffer))
    return [_model_proto(model, direction, _NoWeights(), (FP16, FP32), 18) for direction in DIRECTIONS]


def _view(values: Tensor, like: Tensor) -> Tensor:
    """Return the first values in the shape of another tensor."""
    return values[: like.numel()].view(like.shape)


def graph_names(precision: str) -> dict[str, str]:
    """Return direction → file name in a bundle: forward.onnx, forward.fp16.onnx, …"""
    return {direction: f"{direction}{_infix(precision)}.onnx" for direction in DIRECTIONS}


def weights_name(precision: str) -> str:
    """Return the name of a precision's weights file in a bundle: weights.bin, weights.fp16.bin, …"""
    return f"weights{_infix(precision)}.bin"


def _infix(precision: str) -> str:
    return "" if precision == "fp32" else f".{precision}"


def _model_proto(
    model: ConsistencyModel, direction: str, weights: Weights, types: tuple[Number, Number], opset: int
) -> onnx.ModelProto:
    """The graph of one direction. types: of convolutions and matrix products, and of normalisations."""
    image = helper.make_tensor_type_proto(TensorProto.FLOAT, ["N", *model.config.sample_shape])
    level = helper.make_tensor_type_proto(TensorProto.FLOAT, ["N"])
    builder = GraphBuilder(weights, *types)
    inputs = {"x": image}
    x = "x"
    if direction == "inverse":
        inputs["noise"] = image
        x = builder.op("Add", "x", "noise", at="noise")
    inputs |= {"t": level, "u": level}
    label = None
    if model.config.num_classes is not None:
        label = "label"
        inputs[label] = helper.make_tensor_type_proto(TensorProto.INT64, ["N"])
    result = consistency_model(builder, model, x, "t", "u", label)
    graph = builder.build(direction, inputs, {"x_u": image}, result)
    proto = helper.make_model(
        graph,
        producer_name="bcm_edge",
        opset_imports=[helper.make_opsetid("", opset)],
        ir_version=IR_VERSION,
    )
    properties = {
        "direction": direction,
        "levels": [SIGMA_MIN, SIGMA_MAX],
        "sigma_data": SIGMA_DATA,
        "config": model.config.to_json(),
    }
    helper.set_model_props(proto, {f"bcm_edge.{key}": json.dumps(value) for key, value in properties.items()})
    return proto
