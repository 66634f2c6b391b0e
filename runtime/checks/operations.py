"""Count the floating-point operations of a network call."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import BundleError
from ..wording import first_line

if TYPE_CHECKING:
    import onnx

COUNTED = ("Conv", "Gemm", "MatMul")  # all other operators together take less than 1 % of the operations


def flop_per_call(graph: Path) -> int | None:
    """Return the floating-point operations of one network call on one image.

    Convolutions and matrix products are counted, with two operations per multiplication. Returns None if the
    onnx package, which infers the shapes, is not installed. Raises BundleError if it cannot infer them.
    """
    if importlib.util.find_spec("onnx") is None:
        return None
    import onnx

    try:
        model = onnx.load(graph, load_external_data=False)
        shapes = _shapes(model)
        return sum(_flop(node, shapes) for node in model.graph.node if node.op_type in COUNTED)
    except Exception as error:  # the errors of protobuf and onnx share no base class
        raise BundleError(f"{graph}: its shapes cannot be inferred ({first_line(error)})") from error


def _shapes(model: onnx.ModelProto) -> dict[str, list[int]]:
    """Return the shape of every tensor of a graph, for a batch of one image."""
    import onnx

    for value in model.graph.input:
        value.type.tensor_type.shape.dim[0].dim_value = 1
    model = onnx.shape_inference.infer_shapes(model, data_prop=True)
    shapes = {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        shapes[value.name] = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
    return shapes


def _flop(node: onnx.NodeProto, shapes: dict[str, list[int]]) -> int:
    left, right, output = (shapes[name] for name in (*node.input[:2], node.output[0]))
    products_per_value = math.prod(right[1:]) if node.op_type == "Conv" else left[-1]
    return 2 * math.prod(output) * products_per_value
