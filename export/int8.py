"""Write 8-bit graphs: the float32 graphs with Quantize/Dequantize pairs around convolutions.

onnxruntime.quantization inserts the pairs. Weights are int8 per output channel and activations int8 per
tensor, all symmetric; biases are float32. ONNX Runtime, OpenVINO and TensorRT all support this form.
(TensorRT rejects the int32 biases that onnxruntime.quantization writes by default, and supports signed
activations only.) Everything else stays as in the float32 graph: convolutions are 99 % of the arithmetic.
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

from ..calibration.ranges import Calibration, Ranges
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
ErrorOf = Callable[[Collection[str]], float]  # layers that stay float32 → relative L2 error

# Bytes. Smaller tensors stay in the graph: constants, and scalar scales, which differ between the directions.
_INLINE = 1024


def write_int8_graphs(
    bundle: Bundle, calibration: Calibration, float32_layers: Collection[str], folder: Path
) -> dict[str, str]:
    """Write the two int8 graphs and their weights file; return direction → file name.

    float32_layers: the layers that stay float32, as `layers` names them.

    Raises CalibrationError if the calibration belongs to another model, or if `float32_layers` names an
    unknown layer or all layers.
    """
    check_layers(bundle, float32_layers)
    names = graph_names("int8")
    with WeightsFile(folder / weights_name("int8")) as weights:
        for direction, graph in bundle.graphs("fp32").items():
            proto = quantised(bundle, calibration, float32_layers, direction)
            move_weights(proto, graph.parent, weights)
            onnx.save(proto, folder / names[direction])
    for name in names.values():
        onnx.checker.check_model(folder / name, full_check=True)
    return names


def quantised(
    bundle: Bundle, calibration: Calibration, float32_layers: Collection[str], direction: str
) -> onnx.ModelProto:
    """Return the int8 graph of one direction.

    It contains the 8-bit weights. All others remain in the bundle's float32 weights file.
    """
    calibration.check_fits(bundle)
    graph = bundle.graphs("fp32")[direction]
    ranges = calibration.ranges[direction]
    proto = onnx.shape_inference.infer_shapes(onnx.load(graph, load_external_data=False))
    # Mark the shapes as inferred; otherwise the quantizer writes the model to disk to infer them.
    add_infer_metadata(proto)
    chosen = [
        node for node in proto.graph.node if node.op_type == "Conv" and layer_of(node) not in float32_layers
    ]
    _check_ranges(chosen, ranges, direction)
    weights = {name for node in chosen for name in node.input[1:]}
    for tensor in proto.graph.initializer:
        if tensor.name in weights:
            load_values(tensor, graph.parent)
    quantizer = QDQQuantizer(
        proto,
        True,  # per channel
        False,  # reduce_range
        QuantType.QInt8,
        QuantType.QInt8,
        _tensors_data(ranges),
        [node.name for node in chosen],
        [],
        ["Conv"],
        dict(OPTIONS),
    )
    logging.disable(logging.WARNING)  # one warning per bias that stays float32, which OPTIONS asks for
    try:
        quantizer.quantize_model()
    finally:
        logging.disable(logging.NOTSET)
    quantizer.model.topological_sort()
    result = quantizer.model.model
    assert isinstance(result, onnx.ModelProto)
    _spare_other_readers(result.graph)
    return result


def check_layers(bundle: Bundle, kept: Collection[str]) -> None:
    """Raise CalibrationError if the layers that are not quantised are unknown, or if they are all layers."""
    convolutions = layers(bundle)
    unknown = sorted(set(kept) - set(convolutions))
    if unknown:
        raise CalibrationError(f"cannot leave out {unknown[0]}: it is not a convolution of this network")
    if set(kept) == set(convolutions):
        raise CalibrationError("all convolutions would be left out; at least one must be computed in 8 bits")


def layers(bundle: Bundle) -> list[str]:
    """Return the module paths of the network's convolutions, in the order of the graph."""
    nodes = onnx.load(bundle.graphs("fp32")["forward"], load_external_data=False).graph.node
    return [layer_of(node) for node in nodes if node.op_type == "Conv"]


def choose_layers(
    names: Iterable[str], error: ErrorOf, error_alone: ErrorOf, bound: float, report: Callable[[str], None]
) -> tuple[list[str], float]:
    """Return the most sensitive layers, as few as the bound allows, and the error when they stay float32.

    error: returns the error over whole schedules if these layers stay float32. error_alone: the same, called
    with all layers but one to measure that one alone; it may be a cheaper estimate.

    If the error is within the bound with every layer in int8, the list is empty. Otherwise each layer is
    quantised alone, and layers stay float32 from the worst on. The errors of single layers are taken to be
    independent, so their squares add up. That sum gives the number to start with, and one more layer is
    added at a time until the measured error is within the bound. If no choice meets the bound, all layers
    are returned, with error 0.
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
    for count in range(_first_guess([alone[name] for name in worst_first], bound), len(names)):
        remaining = error(worst_first[:count])
        report(f"{count} of {len(names)} layers in float32: relative L2 {remaining:.1e}, bound {bound:.1e}")
        if remaining <= bound:
            return worst_first[:count], remaining
    return worst_first, 0.0


def _first_guess(errors: list[float], bound: float) -> int:
    """Return how many layers stay float32 at first, at least one.

    errors: the error of each layer alone, the largest first.
    """
    squares = np.square(errors)
    predicted = np.sqrt(
        squares[::-1].cumsum()[::-1]
    )  # predicted[k]: the error if the first k layers stay float32
    return next((count for count in range(1, len(errors)) if predicted[count] <= bound), len(errors))


def _check_ranges(convolutions: Iterable[onnx.NodeProto], ranges: Collection[str], direction: str) -> None:
    """Raise CalibrationError if the range of an activation is missing."""
    activations = {name for node in convolutions for name in (node.input[0], node.output[0])}
    missing = activations - set(ranges)
    if missing:
        raise CalibrationError(f"this calibration has no range for {min(missing)} of the {direction} graph")


def _tensors_data(ranges: Ranges) -> TensorsData:
    """The ranges as onnxruntime.quantization takes them."""
    return TensorsData(
        CalibrationMethod.MinMax,
        {name: (np.float32(low), np.float32(high)) for name, (low, high) in ranges.items()},
    )


def _spare_other_readers(graph: onnx.GraphProto) -> None:
    """Connect every operator but convolutions to the float activations that convolutions read in 8 bits.

    The quantizer gives every reader of such a tensor a Quantize/Dequantize pair: the norm beside a skip
    convolution, for example, would read 8 bits, too. The output of a convolution stays quantised for all
    its readers, so that ONNX Runtime can compute the convolution in integers.
    """
    source = {node.output[0]: node for node in graph.node}
    for node in graph.node:
        if node.op_type in ("Conv", "QuantizeLinear", "DequantizeLinear"):
            continue
        for index, name in enumerate(node.input):
            if name not in source or source[name].op_type != "DequantizeLinear":
                continue
            original = source[source[name].input[0]].input[0]
            if original not in source or source[original].op_type != "Conv":
                node.input[index] = original
    _remove_unread(graph, "DequantizeLinear")
    _remove_unread(graph, "QuantizeLinear")


def _remove_unread(graph: onnx.GraphProto, operator: str) -> None:
    """Remove the nodes of this operator whose output nothing reads."""
    read = {value.name for value in graph.output}
    for node in graph.node:
        read.update(node.input)
    used = [node for node in graph.node if node.op_type != operator or node.output[0] in read]
    del graph.node[:]
    graph.node.extend(used)


def move_weights(proto: onnx.ModelProto, folder: Path, weights: WeightsFile) -> None:
    """Move large tensors to the file that both directions share; equal names have equal values there."""
    for index, tensor in enumerate(proto.graph.initializer):
        load_values(tensor, folder)
        if tensor.HasField("raw_data"):
            values = np.frombuffer(tensor.raw_data, np.uint8)
        else:
            values = onnx.numpy_helper.to_array(tensor)
        if values.nbytes >= _INLINE:
            external = weights.add(tensor.name, values, tensor.dims, tensor.data_type)
            proto.graph.initializer[index].CopyFrom(external)


def load_values(tensor: onnx.TensorProto, folder: Path) -> None:
    """Load a tensor's values from the weights file into the graph, if they are not there yet."""
    if tensor.data_location == TensorProto.EXTERNAL:
        load_external_data_for_tensor(tensor, str(folder))
        del tensor.external_data[:]
        tensor.data_location = TensorProto.DEFAULT


def layer_of(node: onnx.NodeProto) -> str:
    """Return the module path of a convolution."""
    return node.name.removesuffix("/Conv")
