"""docs/onnx.md says what the graphs of a bundle are."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from agreement import relative_l2
from documented import outside_blocks
from fixture_types import ROOT

from bcm_edge.export.fused import fused_graph
from bcm_edge.runtime.backends import onnxruntime as onnxruntime_backend
from bcm_edge.runtime.noise import standard_normal
from bcm_edge.runtime.pixels import from_uint8, to_uint8
from bcm_edge.runtime.schedule import SIGMA_DATA, SIGMA_MAX, SIGMA_MIN
from bcm_edge.runtime.storage.bundle import Bundle, open_bundle
from bcm_edge.runtime.storage.manifest import ON_CPUS

PAGE = ROOT / "docs" / "onnx.md"


def table(heading: str) -> list[list[str]]:
    """Return the cells of the first table below a heading, without its first row and without back quotes."""
    below = outside_blocks(PAGE).split(f"# {heading}\n")[1]
    lines = re.search(r"(?:^\|.*\|\n)+", below, re.MULTILINE)
    assert lines
    rows = lines[0].splitlines()[2:]
    return [[cell.strip().replace("`", "") for cell in row.strip("|").split("|")] for row in rows]


def graphs(bundle: Bundle) -> dict[str, dict[str, onnx.ModelProto]]:
    """Return precision → direction → graph, without weights."""
    return {
        precision: {
            direction: onnx.load(bundle.path / file, load_external_data=False)
            for direction, file in files.items()
        }
        for precision, files in bundle.manifest.graphs.items()
    }


def signature(value: onnx.ValueInfoProto) -> tuple[str, str, str]:
    """Return name, type and shape as the page writes them, for images of 1 × 8 × 8."""
    tensor = value.type.tensor_type
    types = {"FLOAT": "float32", "INT64": "int64"}
    sizes = [size.dim_param or str(size.dim_value) for size in tensor.shape.dim]
    shape = f"[{', '.join(sizes)}]".replace("1, 8, 8", "C, H, W")
    return value.name, types[onnx.TensorProto.DataType.Name(tensor.elem_type)], shape


def stored_in(model: onnx.ModelProto) -> set[str]:
    """Return the paths of the weights files of a graph."""
    entries = [entry for tensor in model.graph.initializer for entry in tensor.external_data]
    return {entry.value for entry in entries if entry.key == "location"}


def session(bundle: Path, direction: str) -> onnxruntime.InferenceSession:
    """Open a float32 graph."""
    return onnxruntime.InferenceSession(bundle / f"{direction}.onnx", providers=["CPUExecutionProvider"])


def test_inputs_and_outputs_of_every_graph_are_those_of_the_page(typed_bundle: Path):
    rows = table("Inputs and outputs")
    for precision, directions in graphs(open_bundle(typed_bundle)).items():
        for direction, model in directions.items():
            values = [signature(value) for value in [*model.graph.input, *model.graph.output]]
            listed = [
                (name, kind, shape)
                for name, kind, shape, _, which in rows
                if which.startswith(("both", direction))
            ]
            assert values == listed, (precision, direction)


def test_files_and_opsets_are_those_of_the_page(gpu_bundle: Path):
    bundle = open_bundle(gpu_bundle)
    rows = {precision: cells for precision, *cells in table("Files")}
    assert rows.keys() == bundle.manifest.graphs.keys()
    for precision, directions in graphs(bundle).items():
        names, weights, opset, runs = rows[precision]
        files = bundle.manifest.graphs[precision]
        assert names == f"{files['forward']}, {files['inverse']}"
        if precision in ON_CPUS:
            assert runs.startswith("yes") == (precision in onnxruntime_backend.INFO.precisions)
        for model in directions.values():
            assert stored_in(model) == {weights}
            assert [(used.domain, str(used.version)) for used in model.opset_import] == [("", opset)]


def test_metadata_are_those_of_the_page(digits_bundle: Path):
    bundle = open_bundle(digits_bundle)
    listed = dict(table("Metadata"))
    for direction, model in graphs(bundle)["fp32"].items():
        metadata = {entry.key: entry.value for entry in model.metadata_props}
        assert metadata.keys() == listed.keys()
        assert metadata["bcm_edge.direction"] == f'"{direction}"'
        assert listed["bcm_edge.direction"] == '"forward" or "inverse"'
        assert metadata["bcm_edge.levels"] == listed["bcm_edge.levels"] == f"[{SIGMA_MIN}, {SIGMA_MAX}]"
        assert metadata["bcm_edge.sigma_data"] == listed["bcm_edge.sigma_data"] == f"{SIGMA_DATA}"
        assert json.loads(metadata["bcm_edge.config"]) == bundle.manifest.model.config


def test_schedules_are_those_of_the_shipped_model(digits_bundle: Path):
    schedules = open_bundle(digits_bundle).manifest.schedules
    for _, _, cell, _ in table("Schedules"):
        name, text = cell.split(": ")
        assert schedules[name] == text


def test_inputs_of_whole_schedules_are_those_of_the_page(digits_bundle: Path):
    bundle = open_bundle(digits_bundle)
    for name, inputs, output in table("A whole schedule as one graph"):
        graph = fused_graph(bundle, "fp32", bundle.schedule(name)).graph
        assert ", ".join(value.name for value in graph.input) == inputs
        assert [value.name for value in graph.output] == [output]


def test_values_of_the_noise_are_those_of_the_page():
    rows = table("Values to compare with")
    assert [int(draw) for draw, *_ in rows] == [0, 1, 2**32]
    for draw, *values in rows:
        z = standard_normal([7], (1, 8, 8), int(draw)).ravel()[[0, 1, 32, 63]]
        np.testing.assert_allclose(z, [float(value) for value in values], rtol=0, atol=1e-6)
    words = np.random.Philox(key=np.array([7, 0], np.uint64)).random_raw(2)
    assert [f"{int(word):#x}" for word in words] == re.findall(r"`(0x[0-9a-f]{16})`", PAGE.read_text())


def test_inverse_adds_the_noise_to_x(digits_bundle: Path):
    inverse = session(digits_bundle, "inverse")
    x, noise = standard_normal([1, 2], (1, 8, 8), 0), 0.07 * standard_normal([1, 2], (1, 8, 8), 1)
    level = {name: np.full(2, value, np.float32) for name, value in (("t", 0.07), ("u", 80))}
    label = np.array([3, 4])
    added = np.asarray(inverse.run(None, {"x": x, "noise": noise, "label": label, **level})[0])
    zeros = np.asarray(inverse.run(None, {"x": x + noise, "noise": 0 * noise, "label": label, **level})[0])
    assert relative_l2(added, zeros) < 1e-6
    assert 0.5 < (zeros / 80).std() < 2


def test_images_of_a_batch_move_between_their_own_levels(digits_bundle: Path):
    forward = session(digits_bundle, "forward")
    t, u = np.array([80, 1, 0.4], np.float32), np.array([0.002, 0.5, 0.4], np.float32)
    x = t[:, None, None, None] * standard_normal([1, 2, 3], (1, 8, 8), 0)
    inputs = {"x": x, "t": t, "u": u, "label": np.array([0, 5, 9])}
    together = np.asarray(forward.run(["x_u"], inputs)[0])
    for i in range(3):
        (alone,) = forward.run(["x_u"], {name: value[i : i + 1] for name, value in inputs.items()})
        assert relative_l2(together[i : i + 1], alone) < 1e-4
    assert (together[2] == x[2]).all()


def test_graph_is_opened_from_its_path_in_any_folder(
    digits_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    assert [value.name for value in session(digits_bundle, "forward").get_outputs()] == ["x_u"]


def test_pixels_are_converted_as_the_page_says():
    assert to_uint8(np.array([-1.5, -1, 0.005, 0.02, 1.5])).tolist() == [0, 0, 128, 130, 255]
    assert from_uint8(np.array([0, 51, 255], np.uint8)) == pytest.approx([-1, -0.6, 1])
