"""Networks, and the parser that makes them of ONNX graphs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gpu_record as record

from .enums import ONNX_TYPES, DataType, LayerType, OnnxParserFlag
from .interfaces import ILogger


class Tensor:
    """A tensor of a network (ITensor)."""

    def __init__(self, name: str, shape: tuple[int, ...], dtype: DataType) -> None:
        self.name, self.shape, self.dtype = name, shape, dtype


class Layer:
    """A layer with one input and one output (ILayer)."""

    def __init__(self, name: str, type: LayerType, source: Tensor, output: Tensor) -> None:
        self.name, self.type, self._source, self._output = name, type, source, output

    def get_input(self, index: int) -> Tensor:
        return self._source

    def get_output(self, index: int) -> Tensor:
        return self._output


class INetworkDefinition:
    """The network of an ONNX graph."""

    def __init__(self) -> None:
        self.graph: Path | None = None
        self.inputs: list[Tensor] = []
        self.outputs: list[Tensor] = []
        self.layers: list[Layer] = []

    num_layers = property(lambda self: len(self.layers))
    num_inputs = property(lambda self: len(self.inputs))

    def get_layer(self, index: int) -> Layer:
        return self.layers[index]

    def get_input(self, index: int) -> Tensor:
        return self.inputs[index]


class ParserError:
    """An error of the parser."""

    def __init__(self, text: str) -> None:
        self._text = text

    def desc(self) -> str:
        return self._text

    def node_name(self) -> str:
        return "some.node"

    def node_operator(self) -> str:
        return "Conv"


class OnnxParser:
    """Reads an ONNX graph into a network."""

    def __init__(self, network: INetworkDefinition, logger: ILogger) -> None:
        self._network, self._errors = network, []

    num_errors = property(lambda self: len(self._errors))

    def set_flag(self, flag: OnnxParserFlag) -> None:
        assert flag == OnnxParserFlag.NATIVE_INSTANCENORM

    def get_error(self, index: int) -> ParserError:
        return self._errors[index]

    def parse_from_file(self, model: str) -> bool:
        import onnx

        try:
            graph = onnx.shape_inference.infer_shapes(onnx.load(model, load_external_data=False)).graph
        except Exception as error:
            self._errors.append(ParserError(str(error)))
            return False
        types = {
            tensor.name: ONNX_TYPES.get(tensor.data_type, DataType.FLOAT) for tensor in graph.initializer
        }
        for value in (*graph.value_info, *graph.input, *graph.output):
            types[value.name] = ONNX_TYPES.get(value.type.tensor_type.elem_type, DataType.FLOAT)
        kinds = {"Conv": LayerType.CONVOLUTION, "DequantizeLinear": LayerType.DEQUANTIZE}
        for node in graph.node:
            ends = (
                Tensor(name, (), types.get(name, DataType.FLOAT)) for name in (node.input[0], node.output[0])
            )
            self._network.layers.append(Layer(node.name, kinds.get(node.op_type, LayerType.OTHER), *ends))
        self._network.graph = Path(model)
        self._network.inputs, self._network.outputs = (
            [_tensor(value) for value in values] for values in (graph.input, graph.output)
        )
        return True


def _tensor(value: Any) -> Tensor:
    """The input or output of a network for one of the graph."""
    kind = value.type.tensor_type
    shape = tuple(dim.dim_value if dim.HasField("dim_value") else -1 for dim in kind.shape.dim)
    is_int32 = kind.elem_type == 7 and record.environment("LABELS", "int64") == "int32"
    return Tensor(value.name, shape, DataType.INT32 if is_int32 else ONNX_TYPES[kind.elem_type])
