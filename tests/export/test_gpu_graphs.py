"""The 8-bit graphs for GPUs, int8-fp16 and fp8: their form, types, files and errors."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from fixture_types import Cli
from networks import TINY, random_model
from onnx import TensorProto, helper, numpy_helper
from refusals import edit_manifest, refusal
from results import only_json

from bcm_edge.calibration.ranges import Calibration, Ranges, read_calibration
from bcm_edge.errors import BackendError, BundleError, CalibrationError
from bcm_edge.export.gpu_graphs import write_gpu_graphs
from bcm_edge.export.graphs import graph_names, write_graphs
from bcm_edge.runtime.backends import open_backend
from bcm_edge.runtime.storage.bundle import Bundle, open_bundle
from bcm_edge.runtime.storage.manifest import DIRECTIONS, FileFacts

NUMBERS = {"int8-fp16": TensorProto.INT8, "fp8": TensorProto.FLOAT8E4M3FN}
LARGEST = {"int8-fp16": 127, "fp8": 448}
CASES = [(precision, direction) for precision in NUMBERS for direction in DIRECTIONS]


class Graph:
    """A graph with the types of its values."""

    def __init__(self, path: Path, values: bool = True) -> None:
        self.proto = onnx.load(path, load_external_data=values)
        graph = onnx.shape_inference.infer_shapes(self.proto, strict_mode=True).graph
        self.tensors = {tensor.name: tensor for tensor in graph.initializer}
        self.source = {name: node for node in graph.node for name in node.output}
        self.types = {value.name: value.type.tensor_type.elem_type for value in graph.value_info}
        self.types |= {name: tensor.data_type for name, tensor in self.tensors.items()}
        self.nodes = graph.node

    def convolutions(self) -> Iterator[tuple[str, onnx.NodeProto]]:
        """Yield layer and node."""
        for node in self.nodes:
            if node.op_type == "Conv":
                yield node.name.removesuffix("/Conv"), node

    def array(self, name: str) -> np.ndarray:
        """The values of a tensor. Those of float8 are float32."""
        return numpy_helper.to_array(self.tensors[name]).astype(np.float32)


@pytest.mark.parametrize(("precision", "direction"), CASES)
def test_each_quantised_convolution_has_one_pair_and_8_bit_weights(
    gpu_bundle: Path, precision: str, direction: str
):
    kept = read_calibration(gpu_bundle / "calibration.json").kept or []
    graph = Graph(gpu_bundle / f"{direction}.{precision}.onnx")
    assert 0 < len(kept) < 14
    for layer, node in graph.convolutions():
        assert [graph.types[name] for name in (*node.input, *node.output)] == [TensorProto.FLOAT16] * 4
        if layer in kept:
            assert node.input[1] in graph.tensors
            continue
        activation, weight = (graph.source[name] for name in node.input[:2])
        quantise = graph.source[activation.input[0]]
        assert [activation.op_type, weight.op_type, quantise.op_type] == [
            "DequantizeLinear",
            "DequantizeLinear",
            "QuantizeLinear",
        ]
        assert graph.types[quantise.input[0]] == TensorProto.FLOAT16
        assert graph.types[quantise.output[0]] == NUMBERS[precision]
        assert quantise.input[1:] == activation.input[1:]  # one scale and zero point
        assert graph.array(quantise.input[1]).shape == ()
        assert graph.array(weight.input[1]).shape == (graph.tensors[weight.input[0]].dims[0],)
        assert {attribute.name: attribute.i for attribute in weight.attribute} == {"axis": 0}
        for scale in (quantise.input[1], weight.input[1]):
            assert graph.types[scale] == TensorProto.FLOAT16
            assert (graph.array(scale) > 0).all()
        for zero in (quantise.input[2], weight.input[2], weight.input[0]):
            assert graph.types[zero] == NUMBERS[precision]
        assert not graph.array(quantise.input[2]).any() and not graph.array(weight.input[2]).any()
    counts = Counter(node.op_type for node in graph.nodes)
    pairs = 27 - len(kept)
    assert (counts["Conv"], counts["QuantizeLinear"], counts["DequantizeLinear"]) == (27, pairs, 2 * pairs)


@pytest.mark.parametrize(("precision", "direction"), CASES)
def test_everything_else_is_as_in_the_float16_graph(gpu_bundle: Path, precision: str, direction: str):
    """So nothing is float32 but what is float32 there, and no cast was added."""
    graph = Graph(gpu_bundle / f"{direction}.{precision}.onnx", values=False)
    float16 = Graph(gpu_bundle / f"{direction}.fp16.onnx", values=False)
    others = [node for node in graph.nodes if node.op_type not in ("QuantizeLinear", "DequantizeLinear")]
    assert [node.name for node in others] == [node.name for node in float16.nodes]
    for node, original in zip(others, float16.nodes, strict=True):
        if node.op_type != "Conv":
            assert node == original
    assert {name: kind for name, kind in graph.types.items() if name in float16.types} == {
        name: kind for name, kind in float16.types.items() if name in graph.types
    }
    assert graph.proto.opset_import[0].version == 19
    assert graph.proto.metadata_props == float16.proto.metadata_props


@pytest.mark.parametrize("precision", NUMBERS)
def test_scales_cover_the_ranges_and_the_weights(gpu_bundle: Path, precision: str):
    """A scale is the float16 number above the exact one, so it is at most 0.1 % larger."""
    calibration = read_calibration(gpu_bundle / "calibration.json")
    graph = Graph(gpu_bundle / f"inverse.{precision}.onnx")
    exact = Graph(gpu_bundle / "inverse.onnx")
    reads = {layer: node.input[:2] for layer, node in exact.convolutions()}
    for layer, node in graph.convolutions():
        if layer in (calibration.kept or []):
            continue
        activation, weight = (graph.source[name] for name in node.input[:2])
        largest = max(map(abs, calibration.ranges["inverse"][reads[layer][0]]))
        ratio = graph.array(activation.input[1]) * LARGEST[precision] / largest
        assert 1 <= ratio <= 1.001, layer
        original = exact.array(reads[layer][1])
        scales = graph.array(weight.input[1]).reshape(-1, 1, 1, 1)
        stored = graph.array(weight.input[0])
        assert np.abs(stored).max() <= LARGEST[precision]
        if precision == "int8-fp16":
            assert np.abs(stored * scales - original).max() <= scales.max() / 2 * 1.001, layer
        else:  # three bits of mantissa, and steps of 2^-9 below the smallest normal number
            bound = np.maximum(np.abs(original) / 16, scales * 2.0**-10) * 1.001
            assert (np.abs(stored * scales - original) <= bound).all(), layer


def test_float8_numbers_are_those_of_torch(gpu_bundle: Path):
    graph = Graph(gpu_bundle / "forward.fp8.onnx")
    name = "middle_block.0.in_layers.2.weight_quantised"
    raw = torch.frombuffer(bytearray(graph.tensors[name].raw_data), dtype=torch.float8_e4m3fn)
    assert np.array_equal(graph.array(name).ravel(), raw.float().numpy())
    assert len(np.unique(graph.array(name))) > 100


def test_convolution_of_few_channels_is_not_quantised_to_fp8(tmp_path: Path):
    """That of the first convolution has 3 input channels, and that of the last one 3 output channels."""
    bundle, calibration = tiny_bundle(tmp_path)
    counts = {}
    for precision in NUMBERS:
        write_gpu_graphs(bundle, precision, calibration, [], tmp_path)
        graph = Graph(tmp_path / f"forward.{precision}.onnx")
        convolutions = dict(graph.convolutions())
        counts[precision] = sum(node.input[0].endswith("DequantizeLinear") for node in convolutions.values())
        ends = [convolutions[layer].input[0] for layer in ("input_blocks.0.0", "out.2")]
        assert [name.endswith("DequantizeLinear") for name in ends] == [precision == "int8-fp16"] * 2
    assert counts == {"int8-fp16": 35, "fp8": 33}


def tiny_bundle(folder: Path) -> tuple[Bundle, Calibration]:
    """A random network in fp32 and fp16, and a calibration in which every range is [-4, 4]."""
    for precision in ("fp32", "fp16"):
        write_graphs(random_model(), folder, precision)
    graphs = {precision: graph_names(precision) for precision in ("fp32", "fp16")}
    names = [*graph_names("fp32").values(), "weights.bin"]
    files = {name: FileFacts(0, name) for name in names}
    ranges = {direction: ranges_of(folder / f"{direction}.onnx", 4.0) for direction in DIRECTIONS}
    calibration = Calibration({name: name for name in names}, "", "", 32, [], ranges, [])
    manifest = replace(open_bundle("digits").manifest, graphs=graphs, files=files)
    assert TINY.in_channels == 3
    return Bundle(folder, manifest), calibration


def ranges_of(graph: Path, largest: float) -> Ranges:
    """The same range for every tensor of a graph."""
    nodes = onnx.load(graph, load_external_data=False).graph.node
    return {name: (-largest, largest) for node in nodes for name in node.output}


@pytest.mark.parametrize("precision", NUMBERS)
def test_typed_backend_rounds_to_8_bits(precision: str, tmp_path: Path):
    """Quantize and Dequantize round as torch does, and the result is float16."""
    zero = helper.make_tensor("zero", NUMBERS[precision], [], b"\0", raw=True)
    scale = numpy_helper.from_array(np.array(0.3, np.float16), "scale")
    nodes = [
        helper.make_node("Cast", ["x"], ["half"], to=TensorProto.FLOAT16),
        helper.make_node("QuantizeLinear", ["half", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["d"]),
        helper.make_node("Cast", ["d"], ["y"], to=TensorProto.FLOAT),
    ]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1000]) for name in "xy")
    graph = helper.make_graph(nodes, "pair", [x], [y], [zero, scale])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=10)

    from bcm_edge.runtime.backends.sessions import open_serialised
    from bcm_edge.runtime.backends.typed import spelled_out

    values = np.linspace(-200, 200, 1000, dtype=np.float32)
    session = open_serialised(spelled_out(model).SerializeToString(), tmp_path)
    result = np.asarray(session.run(None, {"x": values})[0])
    step = float(np.float16(0.3))
    in_steps = torch.from_numpy(values.astype(np.float16).astype(np.float32) / step)
    if precision == "fp8":
        rounded = in_steps.clamp(-448, 448).to(torch.float8_e4m3fn).float()
    else:
        rounded = in_steps.round().clamp(-128, 127)
    expected = (rounded * step).half().float().numpy()
    assert np.abs(result).max() == np.abs(expected).max()
    # A value between two steps may round either way where a division rounds differently.
    assert np.mean(result != expected) <= 0.002


@pytest.mark.parametrize("precision", NUMBERS)
def test_error_on_the_digits(gpu_bundle: Path, precision: str):
    """Every rounding is computed. The errors of 8 bits are far above that of float16, 2e-3."""
    verdicts = {verdict.precision: verdict for verdict in open_bundle(gpu_bundle).verdicts()}
    verdict = verdicts[precision]
    assert (verdict.backend, verdict.against, verdict.bound, verdict.ok) == ("typed", "torch", 0.06, True)
    assert verdict.batches == [1, 2, 5] and len(verdict.schedules) == 7
    assert verdict.needed is not None and 0.015 < verdict.needed < 0.045


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino", "auto"])
@pytest.mark.parametrize("precision", NUMBERS)
def test_processors_refuse_with_the_alternative(gpu_bundle: Path, backend: str, precision: str):
    message = f"{precision} graphs are for NVIDIA GPUs, .*; on a CPU, use precision='int8'"
    with pytest.raises(BackendError, match=message):
        open_backend(backend, open_bundle(gpu_bundle), precision)


def test_calibration_of_the_bundle_is_used_and_other_files_stay(gpu_bundle: Path, typed_bundle: Path):
    for file in typed_bundle.iterdir():
        if file.is_file() and file.name != "manifest.json":
            assert (gpu_bundle / file.name).read_bytes() == file.read_bytes(), file.name


def test_default_precision_is_one_for_processors(gpu_bundle: Path):
    bundle = open_bundle(gpu_bundle)
    assert bundle.precisions == ["fp32", "fp16", "bf16", "int8", "int8-fp16", "fp8"]
    graphs = {name: bundle.manifest.graphs[name] for name in ("fp8", "int8-fp16", "int8")}
    assert Bundle(gpu_bundle, replace(bundle.manifest, graphs=graphs)).precisions[0] == "int8"


def test_bundle_without_float16_graphs_is_refused(bundle_copy: Path, typed_bundle: Path, cli: Cli):
    def remove(manifest: dict[str, Any]) -> None:
        manifest["graphs"] = {"fp32": manifest["graphs"]["fp32"]}

    edit_manifest(bundle_copy, remove)
    calibration = read_calibration(typed_bundle / "calibration.json")
    with pytest.raises(BundleError, match=r"fp8 graphs are made from fp16 graphs; .*has no fp16 graphs"):
        write_gpu_graphs(open_bundle(bundle_copy), "fp8", calibration, [], bundle_copy)
    message = refusal(cli("calibrate", bundle_copy, "--precision", "int8-fp16", "--data", "digits"))
    assert "int8-fp16 graphs are made from fp16 graphs; " in message
    assert "has no fp16 graphs (it has fp32); export with --precision fp32,fp16" in message


def test_missing_range_and_unknown_layer_are_refused(gpu_bundle: Path, tmp_path: Path):
    bundle, calibration = open_bundle(gpu_bundle), read_calibration(gpu_bundle / "calibration.json")
    with pytest.raises(CalibrationError, match=r"cannot leave out input_blocks\.1\.0: it is not a"):
        write_gpu_graphs(bundle, "fp8", calibration, ["input_blocks.1.0"], tmp_path)
    with pytest.raises(CalibrationError, match="was measured on other graphs"):
        write_gpu_graphs(bundle, "fp8", replace(calibration, graphs={}), [], tmp_path)
    layer = "middle_block.0.in_layers.2"
    (read,) = [
        node.input[0] for name, node in Graph(gpu_bundle / "inverse.onnx").convolutions() if name == layer
    ]
    del calibration.ranges["inverse"][read]
    with pytest.raises(CalibrationError, match=f"no range for {read} of the inverse graph"):
        write_gpu_graphs(bundle, "int8-fp16", calibration, [], tmp_path)


@pytest.mark.parametrize(
    ("precision", "message"),
    [
        ("fp16", "unknown precision 'fp16'; choose from int8, int8-fp16, fp8, all"),
        ("int8,fp4", "unknown precision 'fp4'; choose from int8, int8-fp16, fp8, all"),
    ],
)
def test_only_8_bit_precisions_are_calibrated(digits_bundle: Path, cli: Cli, precision: str, message: str):
    result = cli("calibrate", digits_bundle, "--precision", precision)
    assert result.exit_code == 2
    assert message in result.output


@pytest.mark.slow
def test_new_calibration_writes_all_8_bit_graphs_again(gpu_bundle: Path, tmp_path: Path, cli: Cli):
    """One calibration.json describes them all."""
    bundle = shutil.copytree(gpu_bundle, tmp_path / "copy.bundle")
    calibration = replace(
        read_calibration(bundle / "calibration.json"), kept=["input_blocks.0.0", "out.2"], source="new"
    )
    (tmp_path / "new.json").write_text(calibration.to_json())
    options = ("--precision", "fp8", "--calibration", tmp_path / "new.json", "--allow-inaccurate", "--json")
    result = cli("calibrate", bundle, *options)
    assert result.exit_code == 0, result.output
    report = only_json(result.stdout)
    assert list(report["verification"]) == ["int8", "int8-fp16", "fp8"]
    assert (report["source"], report["kept"]) == ("new", ["input_blocks.0.0", "out.2"])
    for precision in ("int8", "int8-fp16", "fp8"):
        graph = Graph(bundle / f"forward.{precision}.onnx", values=False)
        reads = dict(graph.convolutions())["output_blocks.3.0.out_layers.3"].input[0]
        assert "Dequantize" in graph.source[reads].op_type


@pytest.mark.slow
def test_export_writes_the_graphs_alone(tmp_path: Path, cli: Cli):
    """The fp32 and fp16 graphs that they need do not stay. The ranges are rough, so the error is large."""
    assert cli("export", "-o", tmp_path / "b", "--no-verify").exit_code == 0
    graphs = open_bundle(tmp_path / "b").graphs("fp32")
    ranges = {direction: ranges_of(graph, 8.0) for direction, graph in graphs.items()}
    hashes = open_bundle(tmp_path / "b").hashes("fp32")
    (tmp_path / "c.json").write_text(Calibration(hashes, "", "rough", 32, [], ranges, []).to_json())
    options = ("--precision", "fp8", "--calibration", tmp_path / "c.json", "--allow-inaccurate", "--force")
    result = cli("export", "-o", tmp_path / "b", *options)
    assert result.exit_code == 0, result.output
    assert sorted(p.name for p in (tmp_path / "b").iterdir()) == [
        "calibration.json",
        "forward.fp8.onnx",
        "golden.npz",
        "inverse.fp8.onnx",
        "manifest.json",
        "weights.fp8.bin",
    ]
