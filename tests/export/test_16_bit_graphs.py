"""The 16-bit graphs: the types of tensors, the roundings, and the largest numbers of float16."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from agreement import relative_l2
from networks import TINY, random_model, tiny_checkpoint, tiny_model
from onnx import TensorProto, helper
from torch import nn

from bcm_edge.errors import CheckpointError, ParityError
from bcm_edge.export.exporter import ExportPlan, export
from bcm_edge.export.graphs import graph_layouts, write_graphs
from bcm_edge.model.checkpoint import Checkpoint
from bcm_edge.model.preconditioning import ConsistencyModel
from bcm_edge.model.unet import AttentionBlock, ResBlock
from bcm_edge.runtime.backends.typed import TypedBackend, spelled_out
from bcm_edge.runtime.schedule import Move
from bcm_edge.runtime.storage.bundle import Bundle, describe_files
from bcm_edge.runtime.storage.manifest import Manifest, ModelFacts

NARROW = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
FLOAT32_OPERATORS = (
    *("InstanceNormalization", "ReduceSum", "Gemm", "Log", "Sin", "Cos", "Gather", "Sigmoid"),
)


def typed_values(path: Path) -> tuple[onnx.GraphProto, dict[str, int]]:
    """Return a graph, and the type of each of its tensors."""
    model = onnx.load(path, load_external_data=False)
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    values = (*graph.input, *graph.value_info, *graph.output)
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    return graph, types | {tensor.name: tensor.data_type for tensor in graph.initializer}


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
@pytest.mark.parametrize("direction", ["forward", "inverse"])
def test_convolutions_are_narrow_and_the_rest_is_float32(tmp_path: Path, precision: str, direction: str):
    write_graphs(random_model(), tmp_path, precision)
    graph, types = typed_values(tmp_path / f"{direction}.{precision}.onnx")
    output_types: dict[str, set[int]] = {}
    for node in graph.node:
        output_types.setdefault(node.op_type, set()).add(types[node.output[0]])
    for operator in ("Conv", "MatMul", "Softmax"):
        assert output_types[operator] == {NARROW[precision]}, operator
    for operator in FLOAT32_OPERATORS:
        assert output_types[operator] == {TensorProto.FLOAT}, operator
    ends = {types[value.name] for value in (*graph.input, *graph.output)}
    assert ends == {TensorProto.FLOAT, TensorProto.INT64}


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
@pytest.mark.parametrize("attention", ["cosine", "dot_product"])
def test_attention_has_the_form_that_is_fused(tmp_path: Path, precision: str, attention: str):
    """MatMul, Softmax and MatMul follow each other, and q, k and v are [N, heads, positions, channels]."""
    model = random_model(replace(TINY, attention=attention))
    names = write_graphs(model, tmp_path, precision)
    proto = onnx.load(tmp_path / names["forward"], load_external_data=False)
    graph = onnx.shape_inference.infer_shapes(proto, strict_mode=True).graph
    shapes = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim][1:]
        for value in graph.value_info
    }
    source = {name: node for node in graph.node for name in node.output}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    blocks = [block for block in model.network.modules() if isinstance(block, AttentionBlock)]
    softmaxes = [node for node in graph.node if node.op_type == "Softmax"]
    assert len(softmaxes) == len(blocks) > 1
    for softmax in softmaxes:
        first = source[softmax.input[0]]
        (second,) = readers[softmax.output[0]]
        assert (first.op_type, second.op_type) == ("MatMul", "MatMul")
        assert second.input[0] == softmax.output[0]
        transposed = source[first.input[1]]
        assert transposed.op_type == "Transpose"
        heads, positions, channels = shapes[first.input[0]]
        assert shapes[transposed.input[0]] == shapes[second.input[1]] == [heads, positions, channels]
        assert shapes[softmax.output[0]] == [heads, positions, positions]
        assert positions in (4**2, 8**2, 16**2) and channels == blocks[0].head_channels


@pytest.mark.parametrize("scale_shift", [False, True])
def test_one_product_gives_the_vectors_of_all_residual_blocks(tmp_path: Path, scale_shift: bool):
    config = replace(TINY, use_scale_shift_norm=scale_shift)
    model = random_model(config)
    blocks = [block for block in model.network.modules() if isinstance(block, ResBlock)]
    rows = sum(cast(nn.Linear, block.emb_layers[1]).out_features for block in blocks)
    write_graphs(model, tmp_path)
    graph = onnx.load(tmp_path / "forward.onnx", load_external_data=False).graph
    tensors = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    products = [node for node in graph.node if node.op_type == "Gemm"]
    assert len(products) == 6  # two of each level, one that aligns them, and one for all blocks
    assert tensors["emb_layers.1.weight"] == [rows, config.embedding_channels]
    assert not [name for name in tensors if "emb_layers" in name and name.startswith(("input", "output"))]


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_layers_that_depend_only_on_levels_and_label_are_float32(tmp_path: Path, precision: str):
    write_graphs(random_model(), tmp_path, precision)
    graph, types = typed_values(tmp_path / f"forward.{precision}.onnx")
    depends_on_image = {"x"}
    conditioning: list[str] = []
    for node in graph.node:
        if depends_on_image & set(node.input):
            depends_on_image |= set(node.output)
        elif node.op_type not in ("Cast", "Split"):
            conditioning += node.output
    assert len(conditioning) > 25
    # Only one Cast at the end rounds, before the Split: blocks add the vectors to narrow feature maps.
    assert {name for name in conditioning if types[name] == NARROW[precision]} == set()


def test_weights_of_convolutions_take_half_the_space(tmp_path: Path):
    for precision in ("fp32", "fp16", "bf16"):
        write_graphs(random_model(), tmp_path, precision)
    modules = random_model().modules()
    convolutions = [module for module in modules if isinstance(module, torch.nn.Conv2d | torch.nn.Conv1d)]
    narrow = sum(weight.numel() for module in convolutions for weight in module.parameters())
    whole = (tmp_path / "weights.bin").stat().st_size
    for name in ("weights.fp16.bin", "weights.bf16.bin"):
        assert whole - (tmp_path / name).stat().st_size == pytest.approx(2 * narrow, rel=0.01)


@pytest.mark.parametrize("scale_shift", [False, True])
def test_half_normalisations_have_no_casts_around_them(tmp_path: Path, scale_shift: bool):
    model = random_model(replace(TINY, use_scale_shift_norm=scale_shift))
    write_graphs(model, tmp_path, "fp16", fp16_norms="half")
    graph, types = typed_values(tmp_path / "forward.fp16.onnx")
    source = {name: node for node in graph.node for name in node.output}
    norms = [node for node in graph.node if node.op_type == "InstanceNormalization"]
    assert len(norms) > 20
    for node in norms:
        assert {types[name] for name in (*node.input, *node.output)} == {TensorProto.FLOAT16}
    for node in graph.node:
        if node.op_type == "Conv":
            assert source[node.input[0]].op_type != "Cast" or node.name == "input_blocks.0.0/Conv"
    # At both ends of the network, after the vectors, and around the norms of each of four attentions.
    assert sum(node.op_type == "Cast" for node in graph.node) == 3 + 2 * 4
    for node in graph.node:
        if node.op_type in ("Gemm", "Log", "Sin", "Cos", "Gather", "ReduceSum"):
            assert types[node.output[0]] == TensorProto.FLOAT, node.name


def test_half_normalisations_are_only_for_float16_graphs(tmp_path: Path):
    write_graphs(random_model(), tmp_path, "bf16", fp16_norms="half")
    _, types = typed_values(tmp_path / "forward.bf16.onnx")
    assert TensorProto.FLOAT16 not in types.values()
    write_graphs(random_model(), tmp_path, "fp32", fp16_norms="half")
    _, types = typed_values(tmp_path / "forward.onnx")
    assert set(types.values()) == {TensorProto.FLOAT, TensorProto.INT64}


def typed_backend(
    network: ConsistencyModel, folder: Path, precision: str, fp16_norms: str = "float32"
) -> TypedBackend:
    """Write the graphs of a network, and open them with every rounding spelled out."""
    graphs = write_graphs(network, folder, precision, fp16_norms=fp16_norms)
    config = network.config
    facts = ModelFacts("x", config.sample_shape, config.num_classes, 0, config.to_json())
    manifest = Manifest(facts, {precision: graphs}, {}, describe_files(folder))
    return TypedBackend(Bundle(folder, manifest), precision)


@pytest.mark.parametrize(
    ("precision", "norms", "bound"),
    [("fp16", "float32", 5e-3), ("fp16", "half", 6e-3), ("bf16", "float32", 4e-2)],
)
def test_tiny_network_agrees_with_the_authors_code_in_16_bits(
    tmp_path: Path, precision: str, norms: str, bound: float
):
    """Compare every recorded move of the authors' code, with all roundings.

    The errors of random weights are larger than those of trained weights.
    """
    network, recorded = tiny_model()
    backend = typed_backend(network, tmp_path, precision, norms)
    labels = recorded["labels"].astype(np.int64)
    errors = []
    for x, (t, u), expected in zip(recorded["x"], recorded["pairs"], recorded["f"], strict=True):
        if t != u:
            moved = backend.play_move(x, None, Move(float(t), float(u)), labels)
            errors.append(relative_l2(moved, expected))
    assert len(errors) >= 5
    assert max(errors) <= bound
    assert max(errors) >= bound / 50  # some values were rounded


@pytest.mark.parametrize(("precision", "bound"), [("fp16", 5e-3), ("bf16", 4e-2)])
def test_dot_product_attention_agrees_with_torch_in_16_bits(tmp_path: Path, precision: str, bound: float):
    network = random_model(replace(TINY, attention="dot_product"))
    x, labels = np.random.default_rng(0).normal(size=(2, 3, 16, 16)).astype(np.float32), np.array([0, 1])
    moved = typed_backend(network, tmp_path, precision).play_move(x, None, Move(1.0, 0.002), labels)
    levels = (torch.full((2,), level) for level in (1.0, 0.002))
    error = relative_l2(moved, network(torch.from_numpy(x), *levels, torch.from_numpy(labels)))
    assert bound / 500 < error < bound


def test_products_of_queries_and_keys_may_exceed_float16(tmp_path: Path):
    """They are divided by √d, so logits are smaller."""
    network = random_model(replace(TINY, attention="dot_product"))
    block = network.network.middle_block[1]
    assert isinstance(block, AttentionBlock) and block.qkv.bias is not None
    channels, d = block.proj_out.in_channels, block.head_channels
    q, k = torch.zeros(channels), torch.zeros(channels)
    q[:d], k[:d] = 100.0, 100.0  # one head; its products are 10 000 d
    assert block.qkv.bias is not None
    block.qkv.bias.data = torch.cat([q, k, torch.ones(channels)])
    assert 65504 < 10_000 * d < 65504 * d**0.5
    x = np.random.default_rng(0).normal(size=(1, 3, 16, 16)).astype(np.float32)
    backend = typed_backend(network, tmp_path, "fp16")
    assert np.isfinite(backend.play_move(x, None, Move(1.0, 0.002), np.array([0]))).all()


def two_products(kind: int) -> onnx.ModelProto:
    """Return the graph y = (x · 1000) · 0.001, computed in a 16-bit type, with float32 inputs and outputs."""
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
    """Return y of a graph of `two_products`."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": x})[0])


def test_overflow_is_visible_only_where_roundings_are_spelled_out():
    x = np.array([1, 100, 1 / 3], np.float32)
    as_is = product(two_products(TensorProto.FLOAT16), x)
    spelled = product(spelled_out(two_products(TensorProto.FLOAT16)), x)
    # ONNX Runtime keeps float32 between the products, so it does not show the overflow.
    assert np.isfinite(as_is).all()
    assert np.isinf(spelled[1])
    assert np.isfinite(spelled[[0, 2]]).all()
    third = np.float16(np.float16(1 / 3) * np.float16(1000))
    assert spelled[2] == np.float32(np.float16(np.float32(third) * np.float32(np.float16(1e-3))))


def test_bfloat16_rounds_to_eight_bits_and_does_not_overflow():
    model = spelled_out(two_products(TensorProto.BFLOAT16))
    y = product(model, np.array([1, 100, 1.001], np.float32))
    assert np.isfinite(y).all()
    assert y[0] == y[2]  # 1.001 is 1 in bfloat16
    assert abs(y[1] / 100 - 1) < 2**-6


def scaled_checkpoint(factor: float) -> Checkpoint:
    """Return the tiny network with larger weights in one convolution.

    The normalisation after it makes the output the same.
    """
    checkpoint = tiny_checkpoint()
    state = {name: tensor.clone() for name, tensor in checkpoint.state_dict.items()}
    state["input_blocks.1.0.in_layers.2.weight"] *= factor
    return Checkpoint(checkpoint.name, checkpoint.config, state)


@pytest.mark.slow
def test_export_is_refused_where_an_activation_exceeds_float16(tmp_path: Path):
    checkpoint, bundle = scaled_checkpoint(2.0**18), tmp_path / "b"
    message = r"fp16: .*move 1 of \d.* gave NaN or infinity.*Nothing was written.*export bf16"
    with pytest.raises(ParityError, match=message) as caught:
        export(ExportPlan(checkpoint, bundle, precisions=("fp32", "fp16")), "0" * 64)
    assert caught.value.exit_code == 1
    assert not bundle.exists()
    export(ExportPlan(checkpoint, bundle, precisions=("fp32", "bf16"), verify="none"), "0" * 64)


def test_weight_that_exceeds_float16_is_named(tmp_path: Path):
    message = r"input_blocks\.1\.0\.in_layers\.2\.weight has values up to .* largest float16 is 6.55e\+04"
    with pytest.raises(CheckpointError, match=message):
        write_graphs(scaled_checkpoint(2.0**24).model(), tmp_path, "fp16")


def test_layout_has_the_types_of_the_written_graphs(tmp_path: Path):
    model, _ = tiny_model()
    written = [tmp_path / name for name in write_graphs(model, tmp_path, "fp16").values()]
    for path, layout in zip(written, graph_layouts(model.config), strict=True):
        onnx.save(layout, tmp_path / "layout.onnx")
        graph, types = typed_values(path)
        assert [node.name for node in layout.graph.node] == [node.name for node in graph.node]
        assert typed_values(tmp_path / "layout.onnx")[1] == types
