"""Exported graphs, built by the TensorRT-RTX library, which needs no GPU for that.

Running an engine and reading its compute types need a GPU. These tests read the types of the weights of
convolutions from the plans instead.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from build_without_gpu import ORIN, WITH_GPU
from compiling import compile_graphs, types_in_plan
from fixture_types import Cli
from networks import TINY, random_model
from onnx import TensorProto, helper

from bcm_edge.export.engines import child
from bcm_edge.export.engines.child import CHILD
from bcm_edge.export.engines.plan import BuildPlan
from bcm_edge.export.graphs import write_graphs
from bcm_edge.runtime.storage.bundle import Bundle, open_bundle
from bcm_edge.runtime.storage.external_data import external_files
from bcm_edge.runtime.storage.manifest import DIRECTIONS

pytestmark = pytest.mark.usefixtures("builder")
PLANS = ("forward", "inverse", "add_noise", "to_uint8")


@pytest.mark.parametrize(
    ("precision", "requested_types", "weight_types"),
    [
        ("fp32", {"fp32": 27}, {"fp32": 27}),
        ("fp16", {"fp16": 27}, {"fp16": 27}),
        # The weights of the first convolution, which has a single channel, are in the plan twice.
        ("bf16", {"bf16": 27}, {"bf16": 26, "bf16+fp32": 1}),
        ("int8", None, None),
    ],
)
def test_digits_model_is_built(
    typed_bundle: Path,
    tmp_path: Path,
    precision: str,
    requested_types: dict[str, int],
    weight_types: dict[str, int],
):
    graphs = open_bundle(typed_bundle).graphs(precision)
    if precision == "int8":
        unquantized = len(json.loads((typed_bundle / "calibration.json").read_text())["kept"])
        assert 0 < unquantized < 14  # less than half
        requested_types = weight_types = {"int8": 27 - unquantized, "fp32": unquantized}
    built = compile_graphs(graphs, tmp_path / "plans", precision, profiles=[(3, 7, 23)])
    assert built.code == 0, built.events
    (done,) = built.events_of("done")
    assert done.pop("seconds") > 0
    requested = {"forward": requested_types, "inverse": requested_types}
    assert done == {"requested": requested, "types": {}, "wider": {}, "scratch": 0}
    assert {name: types_in_plan(graph, built.plan(name)) for name, graph in graphs.items()} == {
        "forward": weight_types,
        "inverse": weight_types,
    }
    for name in PLANS:
        assert [np.array([batch, 1, 8, 8]).tobytes() in built.plan(name) for batch in (3, 7, 23)] == [
            True
        ] * 3, name
    layers = int(built.lines()[0].split()[1])
    # The inverse graph adds noise, which is one more layer.
    assert built.lines() == [f"forward: {layers} layers parsed", f"inverse: {layers + 1} layers parsed"]
    assert {event["phase"] for event in built.events_of("progress")} == {"Building engine"}
    steps = [(event["plan"], event["done"], event["steps"]) for event in built.events_of("progress")]
    assert steps == [(name, done, 6) for name in PLANS for done in range(7)]


def test_colour_model_is_built_in_fp16(tmp_path: Path):
    write_graphs(random_model(), tmp_path, "fp16")
    graphs = {name: tmp_path / f"{name}.fp16.onnx" for name in ("forward", "inverse")}
    built = compile_graphs(graphs, tmp_path / "plans", "fp16", sample_shape=TINY.sample_shape)
    assert built.code == 0, built.events
    assert built.events_of("done")[0]["requested"] == {"forward": {"fp16": 35}, "inverse": {"fp16": 35}}
    assert {name: types_in_plan(graph, built.plan(name)) for name, graph in graphs.items()} == {
        name: {"fp16": 35} for name in graphs
    }


def test_both_graphs_share_one_weights_file(typed_bundle: Path, tmp_path: Path):
    """Without that file, parsing fails with a clear message."""
    graphs = open_bundle(typed_bundle).graphs("fp16")
    assert [external_files(graph.read_bytes()) for graph in graphs.values()] == [{"weights.fp16.bin"}] * 2
    for name, graph in graphs.items():
        alone = tmp_path / shutil.copy(graph, tmp_path)
        built = compile_graphs({name: alone}, tmp_path / "plans", "fp16")
        assert built.code == 2
        (error,) = built.events_of("error")
        assert error["kind"] == "BuildError"
        assert error["text"].startswith(
            f"{alone}: TensorRT 11.4.0.106 cannot parse it: Failed to import initializer"
        )
        assert f"Failed to open file: {tmp_path / 'weights.fp16.bin'}" in error["text"]


def write_broken(file: Path, kind: str) -> None:
    """Write a graph that TensorRT cannot parse."""
    nodes = [
        helper.make_node("Cast", ["x"], ["half"], name="middle.cast", to=TensorProto.FLOAT16),
        helper.make_node("Add", ["x", "half"], ["y"], name="middle.add"),
    ]
    if kind == "unknown operator":
        nodes = [helper.make_node("Frobnicate", ["x"], ["y"], name="middle.frobnicate", domain="none")]
    ends = [[helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 1, 8, 8])] for name in "xy"]
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("none", 1)]
    graph = helper.make_graph(nodes, "broken", ends[0], ends[1])
    content = helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()
    file.write_bytes(content[: len(content) // 2] if kind == "cut off" else content)


BROKEN = {  # kind → parts of the message of the parser
    "unknown operator": [
        ': creator && "Plugin not found, are the plugin name, version, and namespace correct?"',
        "(node middle.frobnicate, Frobnicate)",
    ],
    "mixed types": [
        ": Invalid Node - middle.add ITensor::getDimensions: Error Code 4: API Usage Error "
        "(middle.add: ElementWiseOperation SUM ",
        "must have same input types. But they are of types Float and Half.",
        "(node middle.add, Add)",
    ],
    "cut off": ["Failed to parse the ONNX model."],
}


@pytest.mark.parametrize("kind", BROKEN)
def test_message_of_the_parser_is_shown(
    typed_copy: Path, tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch, kind: str
):
    """The compiling process and the command line show it, and no engine is left."""
    file = tmp_path / "broken.onnx"
    write_broken(file, kind)
    built = compile_graphs({"forward": file}, tmp_path / "plans")
    assert (built.code, built.events_of("done")) == (2, [])
    (error,) = built.events_of("error")
    assert error["kind"] == "BuildError"
    assert error["text"].startswith(f"{file}: TensorRT 11.4.0.106 cannot parse it: ")
    assert [words for words in BROKEN[kind] if words not in error["text"]] == []
    assert "(node , )" not in error["text"]

    monkeypatch.setattr(Bundle, "graphs", lambda self, precision: dict.fromkeys(DIRECTIONS, file))
    monkeypatch.setattr(Bundle, "hashes", lambda self, precision: {})
    monkeypatch.setattr(
        "bcm_edge.export.engines.plan.plan_build",
        lambda bundle, options, *_: BuildPlan(bundle, ORIN, "11.4.0.106", options),
    )
    monkeypatch.setattr(child, "CHILD", WITH_GPU + CHILD)
    result = cli("build", typed_copy)
    assert result.exit_code == 2
    assert result.stderr.endswith(f"\nerror: {error['text']}\n")
    assert list((typed_copy / "engines").iterdir()) == []


def test_message_of_a_failed_build_is_shown(typed_bundle: Path, tmp_path: Path):
    """This library can leave out weights only on a GPU, and fails late."""
    built = compile_graphs(
        open_bundle(typed_bundle).graphs("fp16"), tmp_path / "plans", "fp16", stripped=True
    )
    assert built.code == 2
    (error,) = built.events_of("error")
    assert error["kind"] == "BuildError"
    assert error["text"].startswith(
        "forward: TensorRT 11.4.0.106 cannot build it: IBuilder::buildSerializedNetwork: Error Code 1: Myelin"
    )


def test_damaged_timing_cache_is_replaced_with_one_warning(tmp_path: Path):
    cache = tmp_path / "timing"
    warning = f"warning: {cache} is not a timing cache of this GPU and TensorRT; starting a new one"
    fresh = compile_graphs({}, tmp_path / "plans", timing_cache=cache)
    assert (fresh.code, fresh.lines()) == (0, [])
    good = cache.read_bytes()
    assert good.startswith(b"ptrt")
    for damaged in (b"no timing cache" * 20, good[:100], b"\0"):
        cache.write_bytes(damaged)
        built = compile_graphs({}, tmp_path / "plans", timing_cache=cache)
        assert (built.code, built.lines(), cache.read_bytes()) == (0, [warning], good)
    again = compile_graphs({}, tmp_path / "plans", timing_cache=cache)
    assert (again.code, again.lines(), cache.read_bytes()) == (0, [], good)


def test_unwritable_timing_cache_is_one_warning(tmp_path: Path):
    (tmp_path / "file").touch()
    cache = tmp_path / "file" / "timing"
    built = compile_graphs({}, tmp_path / "plans", timing_cache=cache)
    assert (built.code, built.lines()) == (
        0,
        [f"warning: {cache}: cannot write the timing cache (File exists)"],
    )
