"""The exported graphs and the verification that guards them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from agreement import relative_l2
from networks import TINY, random_model, tiny_checkpoint
from refusals import edit_manifest, update_hashes

from bcm_edge import BcmError
from bcm_edge.export import layer_graphs
from bcm_edge.export.exporter import ExportPlan, export
from bcm_edge.export.graphs import write_graphs
from bcm_edge.export.writer import GraphBuilder
from bcm_edge.model.checkpoint import load_checkpoint, save_checkpoint
from bcm_edge.model.config import NetworkConfig
from bcm_edge.model.preconditioning import ConsistencyModel
from bcm_edge.runtime.checks.recording import load_recording
from bcm_edge.runtime.storage.bundle import open_bundle
from bcm_edge.runtime.storage.external_data import external_files
from bcm_edge.training.dataset import Dataset
from bcm_edge.training.networks import network_for

pytestmark = pytest.mark.numerical


def run(folder: Path, direction: str, **feeds: np.ndarray) -> np.ndarray:
    """Return the output of a graph on ONNX Runtime."""
    session = onnxruntime.InferenceSession(folder / f"{direction}.onnx", providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, feeds)[0])


def batch(n: int, config: NetworkConfig = TINY) -> dict[str, np.ndarray]:
    """Return n random inputs of the forward graph, each with its own two levels."""
    random = np.random.default_rng(n)
    t, u = random.uniform(0.01, 80, n), random.uniform(0.01, 80, n)
    noisy = random.normal(size=(n, *config.sample_shape)) * t[:, None, None, None]
    inputs = {"x": noisy, "t": t, "u": u}
    feeds: dict[str, np.ndarray] = {name: values.astype(np.float32) for name, values in inputs.items()}
    if config.num_classes:
        feeds["label"] = random.integers(0, config.num_classes, n)
    return feeds


def test_graphs_have_the_documented_signature(tmp_path: Path):
    write_graphs(random_model(), tmp_path)
    inputs = {"forward": ["x", "t", "u", "label"], "inverse": ["x", "noise", "t", "u", "label"]}
    for direction, names in inputs.items():
        proto = onnx.load(tmp_path / f"{direction}.onnx", load_external_data=False)
        assert [i.name for i in proto.graph.input] == names
        types = {value.name: type_and_shape(value) for value in proto.graph.input}
        assert types["x"] == (onnx.TensorProto.FLOAT, ["N", 3, 16, 16])
        assert types["t"] == types["u"] == (onnx.TensorProto.FLOAT, ["N"])
        assert types["label"] == (onnx.TensorProto.INT64, ["N"])
        assert [o.name for o in proto.graph.output] == ["x_u"]
        facts = {p.key: json.loads(p.value) for p in proto.metadata_props}
        assert facts["bcm_edge.direction"] == direction
        assert facts["bcm_edge.levels"] == [0.002, 80.0]
        assert NetworkConfig.from_json(facts["bcm_edge.config"]) == TINY


def type_and_shape(value: onnx.ValueInfoProto) -> tuple[int, list[str | int]]:
    """Return the element type and the dimensions of an input."""
    tensor = value.type.tensor_type
    return tensor.elem_type, [dim.dim_param or dim.dim_value for dim in tensor.shape.dim]


def test_weights_are_stored_once(tmp_path: Path):
    write_graphs(random_model(), tmp_path)
    parameters = 4 * sum(p.numel() for p in random_model().parameters())
    assert parameters <= (tmp_path / "weights.bin").stat().st_size < 1.02 * parameters
    assert (tmp_path / "forward.onnx").stat().st_size < 100_000


@pytest.mark.parametrize("opset", [18, 20, 23])
def test_graphs_have_the_chosen_opset(tmp_path: Path, opset: int):
    write_graphs(random_model(), tmp_path, "fp32", opset)
    proto = onnx.load(tmp_path / "inverse.onnx", load_external_data=False)
    assert [(o.domain, o.version) for o in proto.opset_import] == [("", opset)]
    feeds = batch(2)
    with torch.no_grad():
        expected = random_model()(*(torch.from_numpy(v) for v in feeds.values())).numpy()
    np.testing.assert_allclose(run(tmp_path, "forward", **feeds), expected, rtol=1e-4, atol=1e-3)


VARIANTS = [
    {},
    {"resblock_updown": False},
    {"use_scale_shift_norm": True, "num_classes": None},
    {
        "channel_mult": (1, 1, 2),
        "attention_resolutions": (1, 4),
        "num_res_blocks": 2,
        "norm_groups": 16,
        "num_head_channels": 32,
    },
    {"in_channels": 1, "out_channels": 1, "attention_resolutions": ()},
    {"patch_size": 2},
    {"attention": "dot_product"},
]


@pytest.mark.parametrize("change", VARIANTS, ids=lambda c: "-".join(c) or "tiny")
def test_graphs_compute_what_torch_computes(tmp_path: Path, change: dict[str, Any]):
    model = random_model(replace(TINY, **change))
    write_graphs(model, tmp_path)
    for n in (1, 2, 5):
        feeds = batch(n, model.config)
        noise = np.random.default_rng(0).normal(size=feeds["x"].shape).astype(np.float32)
        noisy = {**feeds, "x": feeds["x"] + noise}
        at_x, at_noisy = (model(*map(torch.from_numpy, values.values())) for values in (feeds, noisy))
        assert relative_l2(run(tmp_path, "forward", **feeds), at_x) <= 1e-5, n
        assert relative_l2(run(tmp_path, "inverse", noise=noise, **feeds), at_noisy) <= 1e-5, n


def test_levels_are_inputs_and_not_folded(tmp_path: Path):
    write_graphs(random_model(), tmp_path)
    feeds = batch(2)
    base = run(tmp_path, "forward", **feeds)
    assert not np.allclose(base, run(tmp_path, "forward", **{**feeds, "t": feeds["t"] / 2}))
    assert not np.allclose(base, run(tmp_path, "forward", **{**feeds, "u": feeds["u"] / 2}))
    assert (run(tmp_path, "forward", **{**feeds, "u": feeds["t"]}) == feeds["x"]).all()


def test_bundle_contains_its_verified_graphs(tmp_path: Path):
    errors = export(ExportPlan(tiny_checkpoint(), tmp_path / "b"), "0" * 64)["fp32"]
    assert len(errors) == 3 * (1 + 2 + 3 + 4 + 1 + 2 + 3)
    assert all(error.ok and error.relative_l2 <= 1e-4 for error in errors)
    assert {error.batch for error in errors} == {1, 2, 5}
    names = sorted(file.name for file in (tmp_path / "b").iterdir())
    assert names == ["forward.onnx", "golden.npz", "inverse.onnx", "manifest.json", "weights.bin"]
    bundle = open_bundle(tmp_path / "b")
    assert len(load_recording(bundle).states) == 7  # the named schedules, and a reconstruction
    (verdict,) = bundle.verdicts()
    assert (verdict.precision, verdict.backend, verdict.against) == ("fp32", "onnxruntime", "torch")
    assert (verdict.ok, verdict.batches) == (True, [1, 2, 5])


def test_wrong_graph_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    silu = layer_graphs.silu

    def wrong_in_one_block(graph: GraphBuilder, x: str, at: str) -> str:
        if at.startswith("output_blocks.0"):
            x = graph.op("Mul", x, graph.constant(1.001), at=at)
        return silu(graph, x, at)

    monkeypatch.setattr(layer_graphs, "silu", wrong_in_one_block)
    message = r"fp32 on onnxruntime differs from torch in \d+ of 48 moves.*Nothing was written"
    with pytest.raises(BcmError, match=message) as caught:
        export(ExportPlan(tiny_checkpoint(), tmp_path / "b"), "0" * 64)
    assert caught.value.exit_code == 1
    assert list(tmp_path.iterdir()) == []


def test_large_network_is_verified_on_two_schedules_by_default(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("bcm_edge.runtime.checks.recording.LARGE", 1000)
    plan = ExportPlan(tiny_checkpoint(), Path("b"))
    assert [str(p) for p in plan.programs] == ["80>3>0.002 +0.12 0.12>0.4>0.002", "+0.07 0.07>15>80>0.002"]
    assert plan.batches == (2,)
    full = ExportPlan(tiny_checkpoint(), Path("b"), verify="full")
    assert (len(full.programs), full.batches) == (7, (1, 2, 5))


def test_ict_weights_without_inversion_are_refused(tmp_path: Path):
    with pytest.raises(BcmError, match="which was trained to move to the image only"):
        ExportPlan(tiny_checkpoint(untrained_inversion=True), tmp_path / "b")


@pytest.mark.parametrize("place", ["../elsewhere.bin", "/etc/passwd", "notes.txt"])
def test_graph_with_weights_outside_its_bundle_is_refused(tmp_path: Path, place: str):
    bundle = tmp_path / "b"
    export(ExportPlan(tiny_checkpoint(), bundle, verify="none"), "0" * 64)
    (bundle / "weights.bin").rename(tmp_path / "elsewhere.bin")
    for direction in ("forward", "inverse"):
        proto = onnx.load(bundle / f"{direction}.onnx", load_external_data=False)
        for tensor in proto.graph.initializer:
            for entry in tensor.external_data:
                entry.value = place if entry.key == "location" else entry.value
        onnx.save(proto, bundle / f"{direction}.onnx")
    edit_manifest(bundle, lambda manifest: manifest["files"].pop("weights.bin"))
    update_hashes(bundle)  # so that only the path is wrong
    with pytest.raises(BcmError, match="loads weights from files that do not belong to this bundle"):
        open_bundle(bundle)


def test_weights_beside_a_graph_in_a_sub_folder_must_be_in_the_manifest(tmp_path: Path):
    bundle = tmp_path / "b"
    export(ExportPlan(tiny_checkpoint(), bundle, verify="none"), "0" * 64)
    (bundle / "g").mkdir()
    for direction in ("forward", "inverse"):
        (bundle / f"{direction}.onnx").rename(bundle / "g" / f"{direction}.onnx")

    def move_graphs(manifest: dict[str, Any]) -> None:
        for direction in ("forward", "inverse"):
            manifest["files"][f"g/{direction}.onnx"] = manifest["files"].pop(f"{direction}.onnx")
            manifest["graphs"]["fp32"][direction] = f"g/{direction}.onnx"

    edit_manifest(bundle, move_graphs)
    # ONNX Runtime would read this file, which is not in the manifest.
    (bundle / "g" / "weights.bin").write_bytes(bytes((bundle / "weights.bin").stat().st_size))
    with pytest.raises(BcmError, match="loads weights from files that do not belong to this bundle"):
        open_bundle(bundle)


def test_last_of_two_locations_is_used(tmp_path: Path):
    write_graphs(random_model(), tmp_path)
    content = (tmp_path / "forward.onnx").read_bytes()
    assert external_files(content) == {"weights.bin"}
    entry = b"\n\x08location\x12\x0bweights.bin"
    for forged in (
        entry + b"\x12\x0d../secret.bin",
        b"\x12\x0d../secret.bin\n\x08location",
        entry + b"\x12\x0d../secret.bin" + b"\n\x08location",
    ):
        tensor = onnx.TensorProto(name="w", dims=[1], data_type=1)
        # 0x2a is the field graph.initializer, 0x6a the field tensor.external_data.
        graph = b"\x2a" + sized(tensor.SerializeToString() + b"\x6a" + sized(forged))
        assert external_files(b"\x3a" + sized(graph)) == {"../secret.bin"}


def sized(content: bytes) -> bytes:
    """Return a protobuf field: its length in one byte, and its content."""
    assert len(content) < 128
    return bytes([len(content)]) + content


def test_tensors_outside_the_initializers_are_refused():
    value = onnx.numpy_helper.from_array(np.zeros(1, np.float32))
    constant = onnx.helper.make_node("Constant", [], ["c"], value=value)
    proto = onnx.helper.make_model(onnx.helper.make_graph([constant], "g", [], []))
    with pytest.raises(ValueError, match="outside the initializers"):
        external_files(proto.SerializeToString())
    with pytest.raises(ValueError, match="not a protobuf message"):
        external_files(b"\x3a\x7f")


@pytest.mark.parametrize("size", [7, 8, 15, 28])
def test_configuration_of_trained_networks_is_read_from_their_files(tmp_path: Path, size: int):
    dataset = Dataset("x", torch.zeros(2, 1, size, size), torch.tensor([0, 1]))
    config = network_for(dataset, 8)
    weights = ConsistencyModel(config).network.state_dict()
    save_checkpoint(tmp_path / "x.safetensors", weights, config, {}, {})
    assert load_checkpoint(tmp_path / "x.safetensors").config == config
