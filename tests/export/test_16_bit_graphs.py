"""The 16-bit graphs: the types of tensors, the roundings, and the largest numbers of float16."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from networks import random_model, tiny_checkpoint, tiny_model
from onnx import TensorProto, helper

from bcm_edge.errors import CheckpointError, ParityError
from bcm_edge.export.exporter import ExportPlan, export
from bcm_edge.export.graphs import write_graphs
from bcm_edge.runtime.backends.typed import TypedBackend, spelled_out
from bcm_edge.runtime.schedule import Move
from bcm_edge.runtime.storage.bundle import Bundle, describe_files
from bcm_edge.runtime.storage.manifest import Manifest, ModelFacts

NARROW = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}


def typed_values(path: Path) -> tuple[onnx.GraphProto, dict[str, int]]:
    graph = onnx.shape_inference.infer_shapes(
        onnx.load(path, load_external_data=False), strict_mode=True
    ).graph
    types = {
        value.name: value.type.tensor_type.elem_type
        for value in (*graph.input, *graph.value_info, *graph.output)
    }
    return graph, types | {tensor.name: tensor.data_type for tensor in graph.initializer}


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
@pytest.mark.parametrize("direction", ["forward", "inverse"])
def test_convolutions_are_narrow_and_the_rest_is_float32(tmp_path: Path, precision: str, direction: str):
    write_graphs(random_model(), tmp_path, precision)
    graph, types = typed_values(tmp_path / f"{direction}.{precision}.onnx")
    of = {
        kind: {types[node.output[0]] for node in graph.node if node.op_type == kind}
        for kind in {node.op_type for node in graph.node}
    }
    assert of["Conv"] == of["MatMul"] == {NARROW[precision]}
    for kind in (
        "InstanceNormalization",
        "Softmax",
        "ReduceL2",
        "Gemm",
        "Log",
        "Sin",
        "Cos",
        "Gather",
        "Sigmoid",
    ):
        assert of[kind] == {TensorProto.FLOAT}, kind
    assert {types[value.name] for value in (*graph.input, *graph.output)} == {
        TensorProto.FLOAT,
        TensorProto.INT64,
    }


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_nothing_that_hangs_on_levels_and_label_alone_is_narrow(tmp_path: Path, precision: str):
    write_graphs(random_model(), tmp_path, precision)
    graph, types = typed_values(tmp_path / f"forward.{precision}.onnx")
    on_image = {"x"}
    conditioning = []
    for node in graph.node:
        if on_image & set(node.input):
            on_image |= set(node.output)
        elif node.op_type != "Cast":
            conditioning += node.output
    assert len(conditioning) > 40
    # a block without scale and shift adds the finished vector to a narrow feature map: the one place where
    # it is rounded, at the very end
    assert {name for name in conditioning if types[name] == NARROW[precision]} == set()


def test_16_bit_weights_take_half_the_space_but_for_the_embedding(tmp_path: Path):
    for precision in ("fp32", "fp16", "bf16"):
        write_graphs(random_model(), tmp_path, precision)
    sizes = {
        name: (tmp_path / name).stat().st_size
        for name in ("weights.bin", "weights.fp16.bin", "weights.bf16.bin")
    }
    narrow = sum(
        p.numel()
        for m in random_model().modules()
        if isinstance(m, torch.nn.Conv2d | torch.nn.Conv1d)
        for p in m.parameters()
    )
    for name in ("weights.fp16.bin", "weights.bf16.bin"):
        assert sizes["weights.bin"] - sizes[name] == pytest.approx(2 * narrow, rel=0.01)


def typed_backend(network, folder: Path, precision: str) -> TypedBackend:
    graphs = write_graphs(network, folder, precision)
    config = network.config
    facts = ModelFacts("x", config.sample_shape, config.num_classes, 0, config.to_json())
    return TypedBackend(
        Bundle(folder, Manifest(facts, {precision: graphs}, {}, describe_files(folder))), precision
    )


@pytest.mark.parametrize(("precision", "bound"), [("fp16", 5e-3), ("bf16", 4e-2)])
def test_the_authors_tiny_network_in_16_bits(tmp_path: Path, precision: str, bound: float):
    """Every recorded move of the authors' code, each with all roundings. Random weights stray further than trained ones."""
    network, recorded = tiny_model()
    backend = typed_backend(network, tmp_path, precision)
    labels = recorded["labels"].astype(np.int64)
    errors = []
    for x, (t, u), f in zip(recorded["x"], recorded["pairs"], recorded["f"], strict=True):
        if t != u:
            got = backend.play_move(x, None, Move(float(t), float(u)), labels)
            errors.append(np.linalg.norm(got - f) / np.linalg.norm(f))
    assert len(errors) >= 5
    assert max(errors) <= bound
    assert max(errors) >= bound / 50  # rounding did happen


def two_products(kind: int) -> onnx.ModelProto:
    """y = (x · 1000) · 0.001 in a 16-bit type, with float32 at both ends."""
    nodes = [
        helper.make_node("Cast", ["x"], ["a"], to=kind),
        helper.make_node("Mul", ["a", "thousand"], ["b"]),
        helper.make_node("Mul", ["b", "thousandth"], ["c"]),
        helper.make_node("Cast", ["c"], ["y"], to=TensorProto.FLOAT),
    ]
    ends = [[helper.make_tensor_value_info(name, TensorProto.FLOAT, [3])] for name in "xy"]
    constants = [
        helper.make_tensor("thousand", kind, [], [1000.0]),
        helper.make_tensor("thousandth", kind, [], [1e-3]),
    ]
    return helper.make_model(
        helper.make_graph(nodes, "g", ends[0], ends[1], constants),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=10,
    )


def product(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": x})[0])


def test_an_overflow_shows_only_where_roundings_are_spelled_out():
    x = np.array([1, 100, 1 / 3], np.float32)
    as_is = product(two_products(TensorProto.FLOAT16), x)
    spelled = product(spelled_out(two_products(TensorProto.FLOAT16)), x)
    assert np.isfinite(as_is).all()  # what makes this backend necessary: ONNX Runtime keeps float32 between
    assert np.isinf(spelled[1]) and np.isfinite(spelled[[0, 2]]).all()
    third = np.float16(np.float16(1 / 3) * np.float16(1000))
    assert spelled[2] == np.float32(np.float16(np.float32(third) * np.float32(np.float16(1e-3))))


def test_bfloat16_rounds_to_eight_bits_and_does_not_overflow():
    session = onnxruntime.InferenceSession(
        spelled_out(two_products(TensorProto.BFLOAT16)).SerializeToString(),
        providers=["CPUExecutionProvider"],
    )
    y = np.asarray(session.run(None, {"x": np.array([1, 100, 1.001], np.float32)})[0])
    assert np.isfinite(y).all()
    assert y[0] == y[2]  # 1.001 is 1 in bfloat16
    assert abs(y[1] / 100 - 1) < 2**-6


def scaled_checkpoint(factor: float):
    """The tiny network with one convolution's weights enlarged, and the norm after it taking that away again."""
    checkpoint = tiny_checkpoint()
    state = {name: tensor.clone() for name, tensor in checkpoint.state_dict.items()}
    state["input_blocks.1.0.in_layers.2.weight"] *= factor
    return type(checkpoint)(checkpoint.name, checkpoint.config, state)


@pytest.mark.slow
def test_an_activation_beyond_float16_is_named_and_nothing_is_published(tmp_path: Path):
    with pytest.raises(
        ParityError, match=r"fp16: .*move 1 of \d.* gave NaN or infinity.*Nothing was written.*export bf16"
    ) as caught:
        export(ExportPlan(scaled_checkpoint(2.0**18), tmp_path / "b", precisions=("fp32", "fp16")), "0" * 64)
    assert caught.value.exit_code == 1
    assert not (tmp_path / "b").exists()
    export(
        ExportPlan(scaled_checkpoint(2.0**18), tmp_path / "b", precisions=("fp32", "bf16"), verify="none"),
        "0" * 64,
    )


def test_a_weight_beyond_float16_is_named(tmp_path: Path):
    with pytest.raises(
        CheckpointError,
        match=r"weight input_blocks\.1\.0\.in_layers\.2\.weight has values up to .* largest float16 is 6.55e\+04",
    ):
        write_graphs(scaled_checkpoint(2.0**24).model(), tmp_path, "fp16")
