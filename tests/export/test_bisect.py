"""Bisecting names the layer that was changed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from fixture_types import Cli
from networks import TINY, random_model
from refusals import update_hashes
from results import only_json

pytest.importorskip("polygraphy", reason="bisecting needs polygraphy; pip install '.[debug]'")

from bcm_edge import BcmError
from bcm_edge.export import layer_errors, layer_graphs
from bcm_edge.export.bisect import first_stray_layer
from bcm_edge.export.exporter import ExportPlan, export
from bcm_edge.export.int8 import layers
from bcm_edge.export.writer import GraphBuilder
from bcm_edge.model.checkpoint import Checkpoint, load_checkpoint, shipped_checkpoint
from bcm_edge.model.player import TorchBackend
from bcm_edge.model.preconditioning import ConsistencyModel
from bcm_edge.runtime.accuracy import BOUNDS
from bcm_edge.runtime.backends import open_backend
from bcm_edge.runtime.checks.parity import compare
from bcm_edge.runtime.checks.recording import Recording, record
from bcm_edge.runtime.storage.bundle import Bundle, open_bundle

LATE = "output_blocks.0.0.in_layers.2"  # a convolution with most of the network before it
PRECISIONS = ("fp32", "fp16", "bf16", "int8")

pytestmark = pytest.mark.slow  # exports and traces


def exported(checkpoint: Checkpoint, folder: Path, *precisions: str) -> Bundle:
    """Export a checkpoint without verifying it."""
    plan = ExportPlan(checkpoint, folder, verify="none", precisions=precisions, allow_inaccurate=True)
    export(plan, "0" * 64)
    return open_bundle(folder)


def tiny(model: ConsistencyModel) -> Checkpoint:
    """Return a model as if it was read from a file."""
    return Checkpoint("tiny.pt", model.config, model.network.state_dict())


def recorded(model: ConsistencyModel, bundle: Bundle) -> Recording:
    """Record two schedules of a bundle on torch, with two samples."""
    return record(TorchBackend(model), [bundle.schedule(name) for name in ("zigzag-3", "invert-2")], 2)


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The shipped model in every precision; in int8 every convolution is computed in 8 bits."""
    folder = tmp_path_factory.mktemp("healthy") / "b"
    return exported(load_checkpoint(shipped_checkpoint()), folder, *PRECISIONS)


@pytest.fixture(scope="module")
def truth(healthy: Bundle) -> Recording:
    """The recording of the shipped model on torch."""
    return recorded(load_checkpoint(shipped_checkpoint()).model(), healthy)


@pytest.fixture
def damaged(healthy: Bundle, tmp_path: Path) -> Callable[..., Bundle]:
    """Return a copy of the bundle after change(graph, folder) of one graph, with hashes that fit."""

    def damage(graph: str, change: Callable[[onnx.ModelProto, Path], None]) -> Bundle:
        folder = shutil.copytree(healthy.path, tmp_path / "damaged")
        proto = onnx.load(folder / graph, load_external_data=False)
        change(proto, folder)
        onnx.save(proto, folder / graph)
        update_hashes(folder)
        return open_bundle(folder)

    return damage


def negate_on_disk(name: str) -> Callable[[onnx.ModelProto, Path], None]:
    """Change the sign of a weight in the file that both graphs read."""

    def change(proto: onnx.ModelProto, folder: Path) -> None:
        (tensor,) = (t for t in proto.graph.initializer if t.name == name)
        place = {entry.key: entry.value for entry in tensor.external_data}
        dtype = np.float16 if tensor.data_type == onnx.TensorProto.FLOAT16 else np.float32
        content = np.memmap(folder / place["location"], dtype, "r+", int(place["offset"]), tuple(tensor.dims))
        content[:] = -content
        content.flush()

    return change


def negate_in_graph(name: str) -> Callable[[onnx.ModelProto, Path], None]:
    """Store a weight with the other sign inside one graph."""

    def change(proto: onnx.ModelProto, folder: Path) -> None:
        (tensor,) = (t for t in proto.graph.initializer if t.name == name)
        whole = next(t for t in onnx.load(folder / "forward.onnx").graph.initializer if t.name == name)
        tensor.CopyFrom(onnx.numpy_helper.from_array(-onnx.numpy_helper.to_array(whole), name))

    return change


@pytest.mark.parametrize("precision", PRECISIONS)
def test_correct_graph_has_no_wrong_layer(healthy: Bundle, truth: Recording, precision: str):
    assert first_stray_layer(healthy, precision, truth, BOUNDS[precision]) is None


def test_convolution_with_a_wrong_weight_is_named(
    damaged: Callable[..., Bundle], truth: Recording, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(layer_errors, "CHUNK", 50)  # the layer is in a later chunk
    bundle = damaged("forward.fp16.onnx", negate_on_disk(f"{LATE}.weight"))
    stray = first_stray_layer(bundle, "fp16", truth, BOUNDS["fp16"])
    assert stray and stray.alone
    assert (stray.layer, stray.node) == (LATE, f"{LATE}/Conv")
    assert stray.first.error > 1
    assert stray.first.before < 2e-3
    assert stray.growing[0].node == f"{LATE}/Conv"
    assert f"the first layer outside the tolerance is {LATE} (node {LATE}/Conv, Conv)\n" in str(stray)
    assert json.loads(json.dumps(stray.to_json()))["first"]["layer"] == LATE


def test_overflow_is_named_with_the_largest_value_of_the_reference(tmp_path: Path):
    model, layer = random_model(), "input_blocks.1.0.in_layers.2"
    model.get_parameter(f"network.{layer}.weight").mul_(5e5)  # the normalisation after it removes the factor
    bundle = exported(tiny(model), tmp_path / "b", "fp32", "fp16", "bf16")
    recording = recorded(model, bundle)
    stray = first_stray_layer(bundle, "fp16", recording, BOUNDS["fp16"])
    assert stray and stray.node == f"{layer}/Conv"
    assert stray.first.error == np.inf
    assert 65504 < stray.first.largest < 1e7
    assert "NaN or infinity in its output" in str(stray)
    assert "the largest float16 is 65504; export bf16" in stray.hint
    # The errors of random weights are larger than those of trained weights.
    assert first_stray_layer(bundle, "bf16", recording, 5 * BOUNDS["bf16"]) is None


def test_small_bound_names_an_8_bit_convolution(healthy: Bundle, truth: Recording):
    stray = first_stray_layer(healthy, "int8", truth, 1e-3)
    assert stray and stray.layer in layers(healthy)
    assert f"do not quantise {stray.layer}: add it to" in stray.hint


def test_accumulated_errors_are_traced_in_the_worst_move(healthy: Bundle, truth: Recording):
    candidate = open_backend("typed", healthy, "bf16")
    bound = 0.99 * max(e.relative_l2 for e in compare(candidate, truth, (len(truth.seeds),), 1.0))
    stray = first_stray_layer(healthy, "bf16", truth, bound)
    assert stray and not stray.alone and stray.output_error < bound
    assert "no move exceeds the bound by itself" in str(stray)


@pytest.mark.parametrize("direction", ["forward", "inverse"])
def test_wrong_weight_of_a_float32_graph_is_named(
    damaged: Callable[..., Bundle], truth: Recording, direction: str
):
    bundle = damaged(f"{direction}.onnx", negate_in_graph(f"{LATE}.weight"))
    stray = first_stray_layer(bundle, "fp32", truth, BOUNDS["fp32"])
    assert stray and (stray.graph, stray.node) == (f"{direction}.onnx", f"{LATE}/Conv")


@pytest.mark.parametrize("scale_shift", [False, True])
def test_wrong_layer_of_a_float32_graph_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scale_shift: bool
):
    silu, config = layer_graphs.silu, replace(TINY, use_scale_shift_norm=scale_shift)

    def wrong_in_one_layer(graph: GraphBuilder, x: str, at: str) -> str:
        if at == LATE.replace("2", "1"):
            x = graph.op("Mul", x, graph.constant(1.01), at=at)
        return silu(graph, x, at)

    monkeypatch.setattr(layer_graphs, "silu", wrong_in_one_layer)
    bundle = exported(tiny(random_model(config)), tmp_path / "b", "fp32")
    stray = first_stray_layer(bundle, "fp32", recorded(random_model(config), bundle), BOUNDS["fp32"])
    assert stray and stray.node == f"{LATE}/Conv"  # the first output after this SiLU that torch also has


def test_recording_of_other_weights_names_no_layer(damaged: Callable[..., Bundle], truth: Recording):
    bundle = damaged("forward.onnx", negate_on_disk(f"{LATE}.weight"))
    message = r"no layer exceeds the bound.*recording was made with other weights"
    with pytest.raises(BcmError, match=message) as caught:
        first_stray_layer(bundle, "fp32", truth, BOUNDS["fp32"])
    assert caught.value.exit_code == 1


def test_verify_reports_the_layer(typed_copy: Path, cli: Cli):
    options = ("--precision", "fp32,int8", "--backend", "onnxruntime", "--bound", 0.01)
    result = cli("verify", typed_copy, *options, "--bisect", "--json")
    assert result.exit_code == 1
    report = only_json(result.stdout)
    assert [(p["precision"], p["ok"]) for p in report["precisions"]] == [("fp32", True), ("int8", False)]
    assert list(report["strays"]) == ["int8"]
    layer = report["strays"]["int8"]["first"]["layer"]
    assert layer.startswith(("input_blocks", "middle_block", "output_blocks", "out"))
