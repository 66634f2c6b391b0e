"""16-bit and 8-bit graphs on the CPU with every rounding that they specify, as GPUs compute them.

A CPU has no 16-bit convolutions. ONNX Runtime computes a float16 graph in float32 and leaves out most of the
roundings. An overflow at 65504 is therefore not visible, and the error seems several times smaller. ONNX
Runtime has no bfloat16 convolutions.

This backend therefore makes the roundings of 16-bit operators explicit: the inputs are cast to float32, the
operator computes in float32, and a cast rounds the result to the type of the graph. ONNX Runtime keeps the
casts that a graph contains. This backend is for verification; it is slower than float32.

The same is done in 8-bit graphs whose other operators are 16-bit: int8-fp16 and fp8. Quantize and Dequantize
compute in float32, and the result of Dequantize is rounded to float16. With these roundings between
Dequantize and the convolution, ONNX Runtime does not replace them by an 8-bit convolution.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import BackendError
from ..machine.placement import ANYWHERE, Placement
from ..storage.bundle import Bundle
from ..wording import counted, first_line, setting
from .base import BackendInfo
from .onnxruntime import OnnxRuntimeBackend
from .sessions import open_serialised

if TYPE_CHECKING:
    import onnx
    import onnxruntime


INFO = BackendInfo(
    "typed",
    "CPU, with every 16-bit rounding, for checks",
    "check",
    "cpu",
    ("fp16", "bf16", "int8-fp16", "fp8"),
    ("onnx", "onnxruntime"),
    "export",
)


class TypedBackend(OnnxRuntimeBackend):
    """Sessions of both directions on graphs with explicit roundings, opened at their first move."""

    name = INFO.name

    def __init__(self, bundle: Bundle, precision: str, placement: Placement = ANYWHERE) -> None:
        model = bundle.manifest.model
        facts = (model.sample_shape, model.num_classes, precision, placement)
        super().__init__(bundle.graphs(precision), False, *facts)
        count = counted(placement.cpu_threads, "thread")
        self.device = f"CPU, {count}, computed in float32 with every {precision} rounding"

    def _open(self, graph: Path) -> onnxruntime.InferenceSession:
        import onnx

        try:
            model = spelled_out(onnx.load(graph, load_external_data=False))
            return open_serialised(model.SerializeToString(), graph.parent, self._placement)
        except Exception as error:  # the exceptions of these libraries have no common base class
            raise BackendError(
                f"{graph}: ONNX Runtime cannot open it with explicit roundings: {first_line(error)}"
            ) from error


def unavailable(precision: str, bundle: Bundle | None = None, placement: Placement = ANYWHERE) -> str | None:
    """Return why this backend cannot play a precision here, or None if it can."""
    if reason := INFO.missing():
        return reason
    if precision not in INFO.precisions:
        return f"{precision} graphs have no 16-bit types; use {setting('backend', 'onnxruntime')}"
    return None


def open(bundle: Bundle, precision: str, placement: Placement = ANYWHERE) -> TypedBackend:
    """Open a bundle. Its graphs are rewritten at their first move."""
    return TypedBackend(bundle, precision, placement)


def spelled_out(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with float32 operators and explicit casts in place of 16-bit operators.

    All values of the model have the same names and types as before.
    """
    import onnx
    from onnx import TensorProto, helper

    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    types = _element_types(graph)
    narrow = {name for name, kind in types.items() if kind in (TensorProto.FLOAT16, TensorProto.BFLOAT16)}
    nodes: list[onnx.NodeProto] = []
    widened: dict[str, str] = {}  # 16-bit value → its copy in float32
    for node in graph.node:
        if node.op_type == "Cast":
            nodes.append(node)
            continue
        for name in node.input:
            if name in narrow and name not in widened:
                widened[name] = f"{name} in float32"
                nodes.append(helper.make_node("Cast", [name], [widened[name]], to=TensorProto.FLOAT))
        wide_node = onnx.NodeProto()
        wide_node.CopyFrom(node)
        del wide_node.input[:], wide_node.output[:]
        wide_node.input.extend(widened.get(name, name) for name in node.input)
        wide_node.output.extend(_unrounded(name) if name in narrow else name for name in node.output)
        nodes.append(wide_node)
        for name in node.output:
            if name in narrow:
                nodes.append(helper.make_node("Cast", [_unrounded(name)], [name], to=types[name]))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def _element_types(graph: onnx.GraphProto) -> dict[str, int]:
    """Return value → element type, for all values of a graph whose types are known."""
    values = (*graph.input, *graph.value_info, *graph.output)
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    return types | {tensor.name: tensor.data_type for tensor in graph.initializer}


def _unrounded(name: str) -> str:
    """Return the name of the float32 result that is rounded to a 16-bit value."""
    return f"{name} before rounding"
