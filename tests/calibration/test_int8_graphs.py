"""The 8-bit graphs: which layers stay float32, the form of the graphs, their files and their quality."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from pathlib import Path

import numpy as np
import onnx
import pytest
from networks import tiny_checkpoint
from onnx import TensorProto, numpy_helper

from bcm_edge.calibration.ranges import read_calibration
from bcm_edge.errors import CalibrationError
from bcm_edge.evaluation.quality import Judge
from bcm_edge.export.exporter import ExportPlan, export
from bcm_edge.export.int8 import choose_layers, layers, write_int8_graphs
from bcm_edge.runtime.backends import open_backend
from bcm_edge.runtime.storage.bundle import open_bundle


def test_as_few_layers_as_possible_stay_float32():
    """Squares of independent errors add up: without the two largest, √(0.02² + 0.01²) = 0.0224 remains."""
    alone = {"a": 0.02, "b": 0.3, "c": 0.01, "d": 0.1}

    def error(layers: Collection[str]) -> float:
        return float(np.sqrt(sum(e**2 for name, e in alone.items() if name not in layers)))

    layers, remaining = choose_layers(alone, error, error, 0.05, lambda line: None)
    assert (layers, remaining) == (["b", "d"], pytest.approx(0.02236, abs=1e-5))
    assert choose_layers(alone, error, error, 0.5, lambda line: None)[0] == []
    assert choose_layers(alone, error, error, 0.001, lambda line: None) == (["b", "d", "a", "c"], 0.0)


def test_layers_are_added_until_the_measured_error_is_within_the_bound():
    """These errors add up to more than is predicted. The prediction is only the start of the search."""
    alone = {"a": 0.02, "b": 0.03, "c": 0.04}

    def error(layers: Collection[str]) -> float:
        return sum(e for name, e in alone.items() if name not in layers)

    layers, remaining = choose_layers(alone, error, error, 0.036, lambda line: None)
    assert layers == ["c", "b"] and remaining == pytest.approx(0.02)


@pytest.mark.parametrize("direction", ["forward", "inverse"])
def test_8_bit_graph_has_the_form_that_every_runtime_supports(typed_bundle: Path, direction: str):
    float32_layers = read_calibration(typed_bundle / "calibration.json").kept
    graph = onnx.load(typed_bundle / f"{direction}.int8.onnx").graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    source = {node.output[0]: node for node in graph.node}
    assert float32_layers
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    assert len(convolutions) == 27
    for node in convolutions:
        layer = node.name.removesuffix("/Conv")
        inputs = [source[name] for name in node.input[:2] if name in source]
        if layer in float32_layers:
            assert tensors[node.input[1]].data_type == TensorProto.FLOAT, layer
            continue
        activation, weight = (node for node in inputs if node.op_type == "DequantizeLinear")
        assert tensors[weight.input[0]].data_type == TensorProto.INT8
        channels = tensors[weight.input[0]].dims[0]
        assert list(tensors[weight.input[1]].dims) == [channels]
        assert {attribute.name: attribute.i for attribute in weight.attribute}["axis"] == 0
        assert list(tensors[activation.input[1]].dims) == []
        assert source[activation.input[0]].op_type == "QuantizeLinear"
        # TensorRT rejects an int32 bias.
        assert tensors[node.input[2]].data_type == TensorProto.FLOAT
    quantisers = [node for node in graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    zeros = [numpy_helper.to_array(tensors[node.input[2]]) for node in quantisers]
    assert len(zeros) >= 3 * (27 - len(float32_layers))
    assert all((zero == 0).all() and zero.dtype == np.int8 for zero in zeros)


def test_only_convolutions_read_8_bit_activations_of_other_layers(typed_bundle: Path):
    """A normalisation beside a skip convolution still reads the float32 activation."""
    graph = onnx.load(typed_bundle / "forward.int8.onnx", load_external_data=False).graph
    source = {node.output[0]: node for node in graph.node}
    for node in graph.node:
        for name in node.input:
            if name in source and source[name].op_type == "DequantizeLinear" and node.op_type != "Conv":
                origin = source[source[source[name].input[0]].input[0]]
                assert origin.op_type == "Conv", (node.name, origin.name)


def test_8_bit_weights_are_stored_once_and_small(typed_bundle: Path):
    names = ("weights.bin", "weights.int8.bin", "forward.int8.onnx")
    sizes = {name: (typed_bundle / name).stat().st_size for name in names}
    float32_layers = read_calibration(typed_bundle / "calibration.json").kept or []
    tensors = onnx.load(typed_bundle / "forward.onnx").graph.initializer
    weights = [tensor for tensor in tensors if tensor.name.endswith(".weight") and len(tensor.dims) == 4]
    quantised = sum(
        numpy_helper.to_array(weight).nbytes
        for weight in weights
        if weight.name.removesuffix(".weight") not in float32_layers
    )
    assert sizes["weights.bin"] - sizes["weights.int8.bin"] == pytest.approx(quantised * 3 / 4, rel=0.02)
    assert sizes["forward.int8.onnx"] < 250_000


def test_same_calibration_gives_the_same_graphs(typed_bundle: Path, tmp_path: Path):
    bundle, calibration = open_bundle(typed_bundle), read_calibration(typed_bundle / "calibration.json")
    write_int8_graphs(bundle, calibration, calibration.kept or [], tmp_path)
    for name in ("forward.int8.onnx", "inverse.int8.onnx", "weights.int8.bin"):
        assert (tmp_path / name).read_bytes() == (typed_bundle / name).read_bytes(), name


def test_calibration_of_another_model_is_refused(typed_bundle: Path, tmp_path: Path):
    export(ExportPlan(tiny_checkpoint(), tmp_path / "b", verify="none"), "0" * 64)
    calibration = read_calibration(typed_bundle / "calibration.json")
    with pytest.raises(
        CalibrationError, match="was measured on other graphs, of another model or of an earlier version"
    ):
        write_int8_graphs(open_bundle(tmp_path / "b"), calibration, [], tmp_path)


def test_layers_to_keep_must_exist_and_not_be_all(typed_bundle: Path, tmp_path: Path):
    bundle, calibration = open_bundle(typed_bundle), read_calibration(typed_bundle / "calibration.json")
    message = r"cannot leave out input_blocks\.1\.0: it is not a convolution"
    with pytest.raises(CalibrationError, match=message):
        write_int8_graphs(bundle, calibration, ["input_blocks.1.0"], tmp_path)
    with pytest.raises(CalibrationError, match="all convolutions would be left out"):
        write_int8_graphs(bundle, calibration, layers(bundle), tmp_path)


def test_every_quantised_layer_needs_its_ranges(typed_bundle: Path, tmp_path: Path):
    calibration = read_calibration(typed_bundle / "calibration.json")
    del calibration.ranges["inverse"]["middle_block.0.in_layers.2/Conv"]
    message = r"no range for middle_block\.0\.in_layers\.2/Conv of the inverse graph"
    with pytest.raises(CalibrationError, match=message):
        write_int8_graphs(open_bundle(typed_bundle), calibration, [], tmp_path)


def test_layers_are_the_convolutions_of_the_graph(digits_bundle: Path):
    names = layers(open_bundle(digits_bundle))
    assert (len(names), names[0], names[-1]) == (27, "input_blocks.0.0", "out.2")


def with_range(text: str, low: float, high: float) -> str:
    """Return a calibration file with one range."""
    ranges = {"forward": {"x": [low, high]}, "inverse": {}}
    return json.dumps({**json.loads(text), "ranges": ranges})


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "[]",
        lambda text: text.replace('"schema": 1', '"schema": 2'),
        lambda text: text.replace('"ranges"', '"rages"'),
        lambda text: with_range(text, 1, -1),
        lambda text: with_range(text, float("nan"), 1),
    ],
)
def test_damaged_calibration_file_is_refused(
    typed_bundle: Path, tmp_path: Path, damage: Callable[[str], str]
):
    file = tmp_path / "calibration.json"
    file.write_text(damage((typed_bundle / "calibration.json").read_text()))
    with pytest.raises(CalibrationError, match="not a calibration file"):
        read_calibration(file)


@pytest.mark.parametrize(
    ("precision", "backend", "bound"),
    [
        ("fp16", "typed", 0.05),
        ("bf16", "typed", 0.05),
        ("int8", "onnxruntime", 0.15),
        ("int8", "openvino", 0.15),
    ],
)
def test_quality_in_lower_precisions_is_that_of_float32(
    typed_bundle: Path, judge: Judge, precision: str, backend: str, bound: float
):
    bundle = open_bundle(typed_bundle)
    if backend == "openvino":
        pytest.importorskip("openvino", reason="openvino is not installed; pip install '.[openvino]'")
    exact, lower = open_backend("onnxruntime", bundle, "fp32"), open_backend(backend, bundle, precision)
    for name in ("one-step", "mixture-4", "invert-2"):
        before, after = (judge.score(bundle.schedule(name), played, 77) for played in (exact, lower))
        assert after == pytest.approx(before, rel=bound), name
