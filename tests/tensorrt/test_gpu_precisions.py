"""int8-fp16 and fp8, built by the TensorRT-RTX library, which needs no GPU for that."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from compiling import compile_graphs
from contract import VERSIONS, run_with
from onnx import TensorProto, helper, numpy_helper

from bcm_edge.runtime.storage.bundle import open_bundle

pytestmark = pytest.mark.usefixtures("builder")

PARSED = """
import json, sys
from collections import Counter
import tensorrt as trt
from bcm_edge.runtime.engines import adapter
messages = adapter.Messages()
network = adapter.create(trt.Builder, messages).create_network(adapter.network_flags())
parser = trt.OnnxParser(network, messages.logger)
assert parser.parse_from_file(sys.stdin.read()), adapter.parser_errors(parser, messages)
counts = Counter()
for index in range(network.num_layers):
    layer = network.get_layer(index)
    if layer.type.name in ("CONVOLUTION", "QUANTIZE", "DEQUANTIZE"):
        counts[f"{layer.type.name} {layer.get_input(0).dtype.name} {layer.get_output(0).dtype.name}"] += 1
print(json.dumps(counts))
"""


def unquantized(bundle: Path) -> int:
    """The number of convolutions that stay float16."""
    return len(json.loads((bundle / "calibration.json").read_text())["kept"])


@pytest.mark.parametrize(("precision", "number"), [("int8-fp16", "int8"), ("fp8", "fp8")])
def test_digits_model_is_built(gpu_bundle: Path, tmp_path: Path, precision: str, number: str):
    """The convolutions are requested in 8 bits, and their 8-bit weights are in the plans."""
    graphs = open_bundle(gpu_bundle).graphs(precision)
    kept = unquantized(gpu_bundle)
    built = compile_graphs(graphs, tmp_path / "plans", precision)
    assert built.code == 0, built.events
    (done,) = built.events_of("done")
    assert done["requested"] == {name: {number: 27 - kept, "fp16": kept} for name in graphs}
    for name, graph in graphs.items():
        tensors = {tensor.name: tensor for tensor in onnx.load(graph).graph.initializer}
        weights = [tensor for tensor in tensors if tensor.endswith(".weight_quantised")]
        assert len(weights) == 27 - kept
        plan = built.plan(name)
        for weight in weights:  # channels are last in a plan
            tensor = tensors[weight]
            values = np.frombuffer(tensor.raw_data, np.uint8).reshape(tensor.dims)
            assert np.moveaxis(values, 1, -1).tobytes() in plan, weight


@pytest.mark.parametrize(("precision", "kind"), [("int8-fp16", "INT8"), ("fp8", "FP8")])
def test_network_is_half_around_8_bit_values(gpu_bundle: Path, precision: str, kind: str):
    graph = open_bundle(gpu_bundle).graphs(precision)["inverse"]
    completed = run_with("builder", PARSED, str(graph))
    assert completed.returncode == 0, completed.stderr
    pairs = 27 - unquantized(gpu_bundle)
    assert json.loads(completed.stdout) == {
        "CONVOLUTION HALF HALF": 27,
        f"QUANTIZE HALF {kind}": pairs,
        f"DEQUANTIZE {kind} HALF": 2 * pairs,
    }


def test_float32_scale_before_a_half_bias_is_refused(tmp_path: Path):
    """Which is why scales are float16: Dequantize returns the type of its scale."""
    weight = numpy_helper.from_array(np.zeros((16, 16, 3, 3), np.int8), "w")
    bias = numpy_helper.from_array(np.zeros(16, np.float16), "b")
    constants = [
        numpy_helper.from_array(np.array(1, np.float32), "scale"),
        numpy_helper.from_array(np.array(0, np.int8), "zero"),
    ]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["d"]),
        helper.make_node("DequantizeLinear", ["w", "scale", "zero"], ["wd"]),
        helper.make_node("Conv", ["d", "wd", "b"], ["y"], name="conv", pads=[1] * 4),
    ]
    x, y = (
        helper.make_tensor_value_info(name, kind, ["N", 16, 8, 8])
        for name, kind in (("x", TensorProto.FLOAT), ("y", TensorProto.FLOAT16))
    )
    graph = helper.make_graph(nodes, "mixed", [x], [y], [weight, bias, *constants])
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=10),
        tmp_path / "mixed.onnx",
    )
    built = compile_graphs({"forward": tmp_path / "mixed.onnx"}, tmp_path / "plans", "int8-fp16")
    (error,) = built.events_of("error")
    assert "`input` and `bias` must be of same type" in error["text"]


def test_only_8_6_is_without_these_precisions():
    code = """
from bcm_edge.runtime.engines import adapter
from bcm_edge.runtime.storage.manifest import PRECISIONS
print([name for name in PRECISIONS if adapter.why_unsupported(name)])
"""
    printed = {version: run_with(version, code).stdout for version in VERSIONS}
    assert printed == {
        "8.6": "['bf16', 'int8-fp16', 'fp8']\n",
        "10.3": "[]\n",
        "10.16": "[]\n",
        "11.4": "[]\n",
    }
