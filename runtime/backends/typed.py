"""16-bit graphs with every rounding they ask for, on ONNX Runtime's CPU: what a device that has such units will make of them.

A CPU has no 16-bit convolutions. ONNX Runtime computes a float16 graph in float32 and drops most of the roundings between, so an overflow
at 65504 does not show and the error looks several times smaller; it has no bfloat16 convolutions at all. So each operator of 16-bit
type is spelled out here: inputs widened, computed in float32, the result rounded to the type the graph says. Casts that a graph itself
asks for are never optimised away. For checking; it is slower than float32.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import BackendError
from ..machine.resources import threads
from ..storage.bundle import Bundle
from ..wording import first_line
from .base import BackendInfo
from .onnxruntime import OnnxRuntimeBackend
from .sessions import open_serialised

if TYPE_CHECKING:
    import onnx
    import onnxruntime


INFO = BackendInfo("typed", "check", "cpu", ("fp16", "bf16"), ("onnx", "onnxruntime"), "export")


class TypedBackend(OnnxRuntimeBackend):
    """Sessions of both directions on spelled-out graphs, each made at its first move."""

    name = INFO.name

    def __init__(self, bundle: Bundle, precision: str) -> None:
        model = bundle.manifest.model
        super().__init__(bundle.graphs(precision), False, model.sample_shape, model.num_classes, precision)
        self.device = f"CPU, {threads()} threads, computed in float32 with every {precision} rounding"

    def _open(self, graph: Path) -> onnxruntime.InferenceSession:
        import onnx

        try:
            return open_serialised(
                spelled_out(onnx.load(graph, load_external_data=False)).SerializeToString(), graph.parent
            )
        except Exception as error:  # neither library's exceptions share a base class
            raise BackendError(
                f"{graph} cannot be spelled out for ONNX Runtime: {first_line(error)}"
            ) from error


def unavailable(precision: str, bundle: Bundle | None = None) -> str | None:
    """Return why the roundings of a precision cannot be spelled out here, or None if they can."""
    if reason := INFO.missing():
        return reason
    if precision not in INFO.precisions:
        return f"{precision} graphs have no 16-bit types to spell out; use --backend onnxruntime"
    return None


def open(bundle: Bundle, precision: str) -> TypedBackend:
    return TypedBackend(bundle, precision)


def spelled_out(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with float32 operators and explicit casts in place of 16-bit operators. Values keep names and types."""
    import onnx
    from onnx import TensorProto, helper

    narrow = {TensorProto.FLOAT16, TensorProto.BFLOAT16}
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    types = {
        value.name: value.type.tensor_type.elem_type
        for value in (*graph.input, *graph.value_info, *graph.output)
    }
    types |= {tensor.name: tensor.data_type for tensor in graph.initializer}
    nodes: list[onnx.NodeProto] = []
    widened: dict[str, str] = {}  # value → its float32 copy
    for node in graph.node:
        if node.op_type == "Cast":
            nodes.append(node)
            continue
        inputs = list(node.input)
        for index, name in enumerate(inputs):
            if types.get(name) in narrow:
                if name not in widened:
                    widened[name] = f"{name} in float32"
                    nodes.append(helper.make_node("Cast", [name], [widened[name]], to=TensorProto.FLOAT))
                inputs[index] = widened[name]
        outputs = [f"{name} before rounding" if types.get(name) in narrow else name for name in node.output]
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        del copy.input[:], copy.output[:]
        copy.input.extend(inputs)
        copy.output.extend(outputs)
        nodes.append(copy)
        rounded = zip(outputs, node.output, strict=True)
        nodes.extend(
            helper.make_node("Cast", [wide], [name], to=types[name]) for wide, name in rounded if wide != name
        )
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model
