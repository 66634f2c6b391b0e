"""The bundles in the package are those that the exporter writes today from the shipped weights."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from agreement import relative_l2
from fixture_types import ROOT
from safetensors.torch import load_file, save_file

from bcm_edge.errors import CheckpointError
from bcm_edge.export.graphs import write_graphs
from bcm_edge.export.shipped import write_bundle
from bcm_edge.model.checkpoint import load_checkpoint, shipped_checkpoint
from bcm_edge.runtime.storage.bundle import open_bundle, read_manifest
from bcm_edge.runtime.storage.external_data import external_files
from bcm_edge.runtime.storage.shipped import SHIPPED, shipped_bundle

pytestmark = pytest.mark.numerical


@pytest.mark.parametrize("name", SHIPPED)
def test_files_are_those_that_the_exporter_writes(name: str, tmp_path: Path):
    write_bundle(name, tmp_path / name)
    written, shipped = open_bundle(tmp_path / name), open_bundle(shipped_bundle(name))
    now, then = written.manifest, shipped.manifest
    assert (now.model, now.schedules, now.graphs) == (then.model, then.schedules, then.graphs)
    assert now.quality == then.quality
    assert now.provenance["checkpoint"] == then.provenance["checkpoint"]
    assert sorted(now.files) == sorted(then.files) == sorted(files(shipped.path) - {"manifest.json"})
    assert now.files[f"{name}.safetensors"] == then.files[f"{name}.safetensors"]
    for direction, graph in shipped.graphs("fp32").items():
        models = [
            onnx.load(file, load_external_data=False) for file in (graph, written.graphs("fp32")[direction])
        ]
        assert parts(models[0].graph) == parts(models[1].graph), "make bundles writes another graph"
        assert models[0].metadata_props == models[1].metadata_props
        assert models[0].opset_import == models[1].opset_import
    with (
        np.load(shipped.path / "golden.npz") as shipped_golden,
        np.load(written.path / "golden.npz") as written_golden,
    ):
        assert set(shipped_golden) == set(written_golden)
        for key in shipped_golden:
            if shipped_golden[key].dtype == np.float32:
                assert relative_l2(written_golden[key], shipped_golden[key]) <= 1e-4
            else:
                assert (written_golden[key] == shipped_golden[key]).all()
    (verdict,) = shipped.verdicts()
    assert verdict.ok and verdict.against == "torch"


def parts(graph: onnx.GraphProto) -> list[object]:
    """The content of a graph, in which the order of the initializers does not matter."""
    initializers = {tensor.name: tensor for tensor in graph.initializer}
    return [list(graph.node), list(graph.input), list(graph.output), initializers]


@pytest.mark.parametrize("name", SHIPPED)
def test_weights_are_stored_once(name: str):
    bundle = shipped_bundle(name)
    for graph in ("forward.onnx", "inverse.onnx"):
        assert external_files((bundle / graph).read_bytes()) == {f"{name}.safetensors"}
        assert (bundle / graph).stat().st_size < 100_000
    assert files(bundle) == {
        "manifest.json",
        "golden.npz",
        "forward.onnx",
        "inverse.onnx",
        f"{name}.safetensors",
    }


def test_quality_is_that_of_the_page_of_the_digits():
    page = (ROOT / "docs" / "model.md").read_text()
    quality = read_manifest(shipped_bundle("digits")).quality
    for name, ratio in re.findall(r"^\| ([a-z]+-\w+) \| `80[^|]+\| \d \| ([\d.]+) ± ", page, re.MULTILINE):
        assert quality.pop(name)["frechet_ratio"] == float(ratio)
    for name, error in re.findall(r"^\| (invert-\d) \|[^|]+\| \d \| ([\d.]+) \|", page, re.MULTILINE):
        assert round(quality.pop(name)["reconstruction_mse"], 4) == float(error)
    assert not quality


@pytest.mark.parametrize("model", ["emoji", "mnist"])
def test_quality_is_that_of_the_page_with_figures(model: str):
    page = (ROOT / "docs" / f"{model}.md").read_text()
    quality = read_manifest(shipped_bundle(model)).quality
    for name, ratio in re.findall(r"^\| ([a-z]+-\w+) \| `80[^|]+\| \d \| ([\d.]+) ± ", page, re.MULTILINE):
        assert quality.pop(name)["frechet_ratio"] == float(ratio)
    for name, error in re.findall(
        r"^\| (invert-\d), one-step \|[^|]+\| \d \| ([\d.]+) \|", page, re.MULTILINE
    ):
        assert round(quality.pop(name)["reconstruction_mse"], 4) == float(error)
    assert not quality


def files(folder: Path) -> set[str]:
    """The names of the files in a folder."""
    return {file.name for file in folder.iterdir()}


def add_one(tensors: dict[str, torch.Tensor]) -> None:
    tensors["out.2.bias"] += 1


def to_bfloat16(tensors: dict[str, torch.Tensor]) -> None:
    tensors["out.2.bias"] = tensors["out.2.bias"].to(torch.bfloat16)


@pytest.mark.parametrize("change", [add_one, to_bfloat16])
def test_checkpoint_with_other_weights_than_the_model_is_refused(
    tmp_path: Path, change: Callable[[dict[str, torch.Tensor]], None]
):
    tensors = load_file(shipped_checkpoint())
    change(tensors)
    save_file(tensors, tmp_path / "other.safetensors")
    model = load_checkpoint(shipped_checkpoint()).model()
    with pytest.raises(CheckpointError, match=r"out\.2\.bias cannot be loaded as it is stored"):
        write_graphs(model, tmp_path, checkpoint="other.safetensors")
