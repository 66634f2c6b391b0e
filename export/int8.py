"""8-bit graphs: the float32 graphs with Quantize/Dequantize pairs around convolutions (onnxruntime.quantization does the insertion).

Weights are int8 per output channel, activations int8 per tensor, all symmetric, biases float32: the form that ONNX
Runtime, OpenVINO and TensorRT all take. (TensorRT rejects the int32 biases that are onnxruntime's default, and wants signed activations.)
Everything else stays as it is in the float32 graph. Convolutions hold 99 % of the arithmetic.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto
from onnx.external_data_helper import load_external_data_for_tensor
from onnxruntime.quantization import QDQQuantizer, QuantType
from onnxruntime.quantization.calibrate import CalibrationMethod, TensorsData
from onnxruntime.quantization.quant_utils import add_infer_metadata

from ..calibration.ranges import Calibration
from ..errors import CalibrationError
from ..runtime.storage.bundle import Bundle
from .graphs import graph_names, weights_name
from .weights import WeightsFile

OPTIONS = {
    "ActivationSymmetric": True,
    "WeightSymmetric": True,
    "QuantizeBias": False,
    "DedicatedQDQPair": True,
}
Error = Callable[[Collection[str]], float]

_INLINE = 1024  # bytes: smaller tensors (constants, scalar scales, which differ between the directions) stay in the graph


def write_int8_graphs(
    bundle: Bundle, calibration: Calibration, kept: Collection[str], folder: Path
) -> dict[str, str]:
    """Write the pair of int8 graphs and their weights file; returns direction → file name.

    kept: layers (as `layers` names them) that stay float32. Raises CalibrationError if the calibration is of another model, or
    `kept` names a layer that does not exist or every one there is.
    """
    convolutions = layers(bundle)
    if unknown := sorted(set(kept) - set(convolutions)):
        raise CalibrationError(
            f"{unknown[0]} is to be kept in float32, but is no convolution of this network"
        )
    if set(kept) == set(convolutions):
        raise CalibrationError(
            "every convolution is to be kept in float32, which would be an int8 graph in name only"
        )
    names = graph_names("int8")
    with WeightsFile(folder / weights_name("int8")) as weights:
        for direction, graph in bundle.graphs("fp32").items():
            proto = quantised(bundle, calibration, kept, direction)
            _move_weights(proto, graph.parent, weights)
            onnx.save(proto, folder / names[direction])
    for name in names.values():
        onnx.checker.check_model(folder / name, full_check=True)
    return names


def quantised(
    bundle: Bundle, calibration: Calibration, kept: Collection[str], direction: str
) -> onnx.ModelProto:
    """One int8 graph. 8-bit weights are inside; all others are where they were, in the bundle's float32 weights file."""
    calibration.check_fits(bundle)
    graph, ranges = bundle.graphs("fp32")[direction], calibration.ranges[direction]
    proto = onnx.shape_inference.infer_shapes(onnx.load(graph, load_external_data=False))
    add_infer_metadata(
        proto
    )  # says that shapes are there; the quantizer would write everything to disk to infer them
    chosen = [node for node in proto.graph.node if node.op_type == "Conv" and _layer(node) not in kept]
    if missing := {name for node in chosen for name in (node.input[0], node.output[0])} - set(ranges):
        raise CalibrationError(f"this calibration has no range for {min(missing)} of the {direction} graph")
    weights = {name for node in chosen for name in node.input[1:]}
    for tensor in proto.graph.initializer:
        if tensor.name in weights:
            _fetch(tensor, graph.parent)
    known = TensorsData(
        CalibrationMethod.MinMax,
        {name: (np.float32(low), np.float32(high)) for name, (low, high) in ranges.items()},
    )
    names = [node.name for node in chosen]
    quantizer = QDQQuantizer(
        proto, True, False, QuantType.QInt8, QuantType.QInt8, known, names, [], ["Conv"], dict(OPTIONS)
    )
    logging.disable(
        logging.WARNING
    )  # it warns once per bias that the bias is not quantised, which is what the options ask for
    try:
        quantizer.quantize_model()
    finally:
        logging.disable(logging.NOTSET)
    quantizer.model.topological_sort()
    result = quantizer.model.model
    assert isinstance(result, onnx.ModelProto)
    _spare_other_readers(result.graph)
    return result


def layers(bundle: Bundle) -> list[str]:
    """The convolutions of the network by module path, in the graph's order."""
    nodes = onnx.load(bundle.graphs("fp32")["forward"], load_external_data=False).graph.node
    return [_layer(node) for node in nodes if node.op_type == "Conv"]


def choose_layers(
    names: Iterable[str], error: Error, error_alone: Error, bound: float, report: Callable[[str], None]
) -> tuple[list[str], float]:
    """(layers to keep in float32, the error that remains), keeping the most sensitive, and as few as the bound allows.

    error(kept): the error after whole schedules with these layers kept; error_alone: the same, and may be a cheaper estimate, for all
    but one kept. If everything in int8 is within the bound, nothing is ranked. Otherwise each layer is quantised alone and the worst are
    kept, as many as the sum of the squared errors says, then one more at a time until the bound is met; with all kept there is nothing
    left to quantise.
    """
    names = list(names)
    remaining = error([])
    report(f"int8 everywhere: relative L2 {remaining:.1e}, bound {bound:.1e}")
    if remaining <= bound:
        return [], remaining
    alone = {}
    for index, name in enumerate(names):
        alone[name] = error_alone([other for other in names if other != name])
        report(f"int8 in {name} alone ({index + 1} of {len(names)}): relative L2 {alone[name]:.1e}")
    worst_first = sorted(names, key=lambda name: -alone[name])
    squares = np.square([alone[name] for name in worst_first])
    predicted = np.sqrt(squares[::-1].cumsum()[::-1])  # with the first k kept
    first = next((k for k in range(1, len(names)) if predicted[k] <= bound), len(names))
    for k in range(max(first, 1), len(names)):
        remaining = error(worst_first[:k])
        report(f"{k} of {len(names)} layers in float32: relative L2 {remaining:.1e}, bound {bound:.1e}")
        if remaining <= bound:
            return worst_first[:k], remaining
    return worst_first, 0.0


def _spare_other_readers(graph: onnx.GraphProto) -> None:
    """Let a float tensor that a convolution takes in 8 bits reach everything else that reads it as it was.

    The quantizer gives every reader of the tensor a pair of its own: the norm beside a skip convolution, say, would read 8 bits too.
    What a convolution gives stays quantised for all, which is what lets ONNX Runtime compute it in integers.
    """
    source = {node.output[0]: node for node in graph.node}
    for node in graph.node:
        if node.op_type in ("Conv", "QuantizeLinear", "DequantizeLinear"):
            continue
        for index, name in enumerate(node.input):
            if name in source and source[name].op_type == "DequantizeLinear":
                quantize = source[source[name].input[0]]
                if quantize.input[0] not in source or source[quantize.input[0]].op_type != "Conv":
                    node.input[index] = quantize.input[0]
    ends = {value.name for value in graph.output}
    for kind in ("DequantizeLinear", "QuantizeLinear"):  # pairs that nothing reads any more, from their ends
        read = ends.union(*(node.input for node in graph.node))
        used = [node for node in graph.node if node.op_type != kind or node.output[0] in read]
        del graph.node[:]
        graph.node.extend(used)


def _move_weights(proto: onnx.ModelProto, folder: Path, weights: WeightsFile) -> None:
    """Put large tensors into the file that both directions share; equal names hold equal values there."""
    for index, tensor in enumerate(proto.graph.initializer):
        _fetch(tensor, folder)
        raw = (
            np.frombuffer(tensor.raw_data, np.uint8)
            if tensor.HasField("raw_data")
            else onnx.numpy_helper.to_array(tensor)
        )
        if raw.nbytes >= _INLINE:
            proto.graph.initializer[index].CopyFrom(
                weights.add(tensor.name, raw, tensor.dims, tensor.data_type)
            )


def _fetch(tensor: onnx.TensorProto, folder: Path) -> None:
    """Bring a tensor's values out of the weights file into the graph."""
    if tensor.data_location == TensorProto.EXTERNAL:
        load_external_data_for_tensor(tensor, str(folder))
        del tensor.external_data[:]
        tensor.data_location = TensorProto.DEFAULT


def _layer(node: onnx.NodeProto) -> str:
    return node.name.removesuffix("/Conv")
