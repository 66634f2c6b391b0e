"""16-bit graphs: what is of which type, how far they stray, what happens at the end of float16, and what a bundle says about it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from click.testing import Result
from networks import random_model, tiny_checkpoint, tiny_model
from onnx import TensorProto, helper

from bcm_edge.errors import BackendError, BundleError, CheckpointError, InputError, ParityError
from bcm_edge.export.exporter import ExportPlan, export
from bcm_edge.export.graphs import write_graphs
from bcm_edge.runtime.backends import open_backend
from bcm_edge.runtime.backends.typed import TypedBackend, spelled_out
from bcm_edge.runtime.schedule import Move
from bcm_edge.runtime.storage.bundle import Bundle, describe_files, open_bundle
from bcm_edge.runtime.storage.manifest import Manifest, ModelFacts

Cli = Callable[..., Result]

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
    # a block without scale and shift adds the finished vector to a narrow feature map: the one place where it is rounded, at the very end
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


def typed_backend(network, folder: Path, precision: str) -> TypedBackend:
    graphs = write_graphs(network, folder, precision)
    config = network.config
    facts = ModelFacts("x", config.sample_shape, config.num_classes, 0, config.to_json())
    return TypedBackend(
        Bundle(folder, Manifest(facts, {precision: graphs}, {}, describe_files(folder))), precision
    )


# ---- roundings


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


def test_typed_refuses_what_has_no_16_bit_types(typed_bundle: Path):
    with pytest.raises(BackendError, match="int8 graphs have no 16-bit types to spell out"):
        open_backend("typed", open_bundle(typed_bundle), "int8")


@pytest.mark.parametrize("precision", ["", "fp4"])
def test_an_unknown_precision_is_refused(typed_bundle: Path, precision: str):
    with pytest.raises(
        InputError, match=f"unknown precision '{precision}'; choose one of fp32, fp16, bf16, int8"
    ):
        open_backend("auto", open_bundle(typed_bundle), precision)


def test_bf16_on_onnxruntime_is_refused_with_the_way_out(typed_bundle: Path):
    with pytest.raises(BackendError, match="no bfloat16 convolutions on a CPU; take --backend openvino"):
        open_backend("onnxruntime", open_bundle(typed_bundle), "bf16")


# ---- the end of float16


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


# ---- bundles


def test_one_command_writes_and_verifies_four_precisions(typed_bundle: Path):
    bundle = open_bundle(typed_bundle)
    assert bundle.precisions == ["fp32", "fp16", "bf16", "int8"]
    verdicts = {(v.precision, v.backend): v for v in bundle.verdicts()}
    assert set(verdicts) >= {
        ("fp32", "onnxruntime"),
        ("fp16", "typed"),
        ("fp16", "onnxruntime"),
        ("bf16", "typed"),
    }
    assert {precision for precision, _ in verdicts} == set(bundle.precisions)
    bounds = {"fp32": 1e-4, "fp16": 5e-3, "bf16": 2e-2, "int8": 6e-2}
    for (precision, _), verdict in verdicts.items():
        assert verdict.ok and verdict.bound == bounds[precision]
        assert verdict.needed is not None and 0 < verdict.needed <= verdict.bound
        assert verdict.batches == [1, 2, 5] and len(verdict.schedules) == 7
    needed = {key: verdict.needed for key, verdict in verdicts.items() if verdict.needed is not None}
    keys = ("fp32", "onnxruntime"), ("fp16", "onnxruntime"), ("fp16", "typed"), ("bf16", "typed")
    ascending = [needed[key] for key in keys]
    assert ascending == sorted(ascending)  # onnxruntime rounds less than a float16 graph asks for


def test_verify_goes_on_where_one_precision_cannot_run(typed_copy: Path, cli: Cli):
    ended = cli("verify", typed_copy, "--backend", "onnxruntime", "--json")
    assert ended.exit_code == 0, ended.output
    assert [p["precision"] for p in json.loads(ended.stdout)["precisions"]] == ["fp32", "fp16", "int8"]
    assert "bf16: NOT VERIFIED: onnxruntime: ONNX Runtime has no bfloat16 convolutions" in ended.stderr
    named = cli("verify", typed_copy, "--backend", "onnxruntime", "--precision", "bf16")
    assert named.exit_code == 2


def test_a_precision_alone(tmp_path: Path, cli: Cli):
    ended = cli("export", "-o", tmp_path / "b", "--precision", "fp16")
    assert ended.exit_code == 0, ended.output
    assert sorted(p.name for p in (tmp_path / "b").iterdir()) == [
        "forward.fp16.onnx",
        "golden.npz",
        "inverse.fp16.onnx",
        "manifest.json",
        "weights.fp16.bin",
    ]
    told = json.loads(
        cli("generate", tmp_path / "b", "--label", "3", "-o", tmp_path / "x.png", "--json").stdout
    )
    assert told["precision"] == "fp16"
    with pytest.raises(
        BundleError, match=r"has no fp32 graphs \(it has fp16\); export with --precision fp16,fp32"
    ):
        open_backend("auto", open_bundle(tmp_path / "b"), "fp32")


def test_the_default_is_the_most_exact(typed_bundle: Path):
    assert open_backend("auto", open_bundle(typed_bundle)).precision == "fp32"


def test_pictures_in_every_precision_are_the_same_pictures(typed_bundle: Path, tmp_path: Path, cli: Cli):
    images = {}
    for precision, backend in (("fp32", "auto"), ("fp16", "auto"), ("bf16", "typed"), ("int8", "auto")):
        out = tmp_path / f"{precision}.npz"
        options = (
            "-n",
            10,
            "--label",
            "all",
            "--schedule",
            "mixture-4",
            "--precision",
            precision,
            "--backend",
            backend,
        )
        assert cli("generate", typed_bundle, *options, "-o", out).exit_code == 0
        images[precision] = np.load(out)["images"]
    for precision, bound in (("fp16", 0.005), ("bf16", 0.02), ("int8", 0.06)):
        assert 0 < np.sqrt(np.mean((images[precision] - images["fp32"]) ** 2)) <= bound, precision


def test_calibration_data_without_int8_is_a_usage_error(cli: Cli, tmp_path: Path):
    ended = cli("export", "-o", tmp_path / "b", "--data", "digits")
    assert ended.exit_code == 2
    assert "are for int8, which --precision does not ask for" in ended.output


def test_a_precision_that_does_not_exist(cli: Cli, tmp_path: Path):
    ended = cli("export", "-o", tmp_path / "b", "--precision", "fp32,fp8")
    assert ended.exit_code == 2
    assert "unknown precision 'fp8'; choose one of fp32, fp16, bf16, int8" in ended.output
