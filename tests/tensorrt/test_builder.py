"""Exported graphs, built by the TensorRT-RTX library, which needs no GPU for that.

Running an engine and reading its compute types need a GPU. These tests read the types of the weights of
convolutions from the plans instead.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from build_without_gpu import ORIN, WITH_GPU
from contract import environment, run_with
from fixture_types import Cli
from networks import TINY, random_model
from onnx import TensorProto, helper, numpy_helper

from bcm_edge.export.engines import child
from bcm_edge.export.engines.child import CHILD
from bcm_edge.export.engines.plan import BuildPlan
from bcm_edge.export.graphs import write_graphs
from bcm_edge.runtime.storage.bundle import Bundle, open_bundle
from bcm_edge.runtime.storage.external_data import external_files
from bcm_edge.runtime.storage.manifest import DIRECTIONS

PLANS = ("forward", "inverse", "add_noise", "to_uint8")
NAMES = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16", "int8": "int8"}


@pytest.fixture(autouse=True)
def builder(monkeypatch: pytest.MonkeyPatch) -> None:
    """The processes of a test find the library."""
    for name, value in environment("builder").items():
        monkeypatch.setenv(name, value)


@dataclass
class Compiled:
    """The exit code, events and plans of a compiling process."""

    code: int
    events: list[dict[str, Any]]
    folder: Path

    def events_of(self, event: str) -> list[dict[str, Any]]:
        """The events of a kind, without the kind."""
        return [
            {key: value for key, value in each.items() if key != "event"}
            for each in self.events
            if each["event"] == event
        ]

    def lines(self) -> list[str]:
        """The texts of all lines that were reported."""
        return [line["text"] for line in self.events_of("line")]

    def plan(self, name: str) -> bytes:
        """The content of a plan."""
        return (self.folder / f"{name}.plan").read_bytes()


def compile_graphs(graphs: dict[str, Path], folder: Path, precision: str = "fp32", **more: Any) -> Compiled:
    """Run the compiling process of `bcm-edge build`. more: options, timing_cache or sample_shape."""
    options = {
        "precision": precision,
        "profiles": [(1, 4, 16)],
        "workspace": 1 << 31,
        "opt_level": 3,
        "stripped": False,
        "single": False,
    }
    request = {
        "graphs": {name: str(file) for name, file in graphs.items()},
        "folder": str(folder),
        "sample_shape": more.pop("sample_shape", (1, 8, 8)),
        "timing_cache": str(more.pop("timing_cache", "")),
        "options": {**options, **more},
    }
    folder.mkdir(exist_ok=True)
    result = run_with("builder", CHILD, json.dumps(request))
    return Compiled(result.returncode, [json.loads(line) for line in result.stdout.splitlines()], folder)


def types_in_plan(graph: Path, plan: bytes) -> dict[str, int]:
    """Count the convolutions by the type of their weights in the plan; "bf16+fp32" means both.

    In a plan, channels are last, and their number is even.
    """
    model = onnx.load(graph)
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    quantized = {
        node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "DequantizeLinear"
    }
    counts: Counter[str] = Counter()
    for node in model.graph.node:
        if node.op_type == "Conv":
            weights = numpy_helper.to_array(tensors[quantized.get(node.input[1], node.input[1])])
            last = np.moveaxis(weights, 1, -1)
            even = np.concatenate([last, np.zeros_like(last[..., : last.shape[-1] % 2])], -1)
            kinds = {
                NAMES[form.dtype.name]
                for form in (last, even, last.astype(np.float32))
                if form.tobytes() in plan
            }
            counts["+".join(sorted(kinds))] += 1
    return dict(counts)


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


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_single_engine_of_several_profiles_is_built(typed_bundle: Path, tmp_path: Path, precision: str):
    graph = open_bundle(typed_bundle).graphs(precision)["inverse"]
    profiles = [(1, 1, 1), (2, 13, 31), (61, 241, 251)]
    built = compile_graphs({"inverse": graph}, tmp_path / "plans", precision, profiles=profiles, single=True)
    assert built.code == 0, built.events
    (done,) = built.events_of("done")
    assert done["requested"] == {"inverse": {precision: 27}}
    assert sorted(file.name for file in built.folder.iterdir()) == ["inverse.plan", "to_uint8.plan"]
    assert types_in_plan(graph, built.plan("inverse")) == {precision: 27}
    # All profiles share the weights. (The weights of the first convolution are padded.)
    copies = [built.plan("inverse").count(weights) for weights in channels_last(graph)]
    assert copies[1:] == [1] * 26
    for sizes in profiles:
        for size in sizes:
            assert np.array([size, 1, 8, 8]).tobytes() in built.plan("inverse"), size


def channels_last(graph: Path) -> list[bytes]:
    """The weights of every convolution, as a plan contains them."""
    model = onnx.load(graph)
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    weights = [numpy_helper.to_array(tensors[node.input[1]]) for node in convolutions]
    return [np.moveaxis(values, 1, -1).tobytes() for values in weights]


PROFILES = """
import json, sys
from pathlib import Path
import tensorrt as trt
from bcm_edge.export.engines.plan_writer import PlanWriter
from bcm_edge.runtime.engines.facts import BuildOptions
added = []
class Config:
    def __init__(self, config):
        self.__dict__["config"] = config
    def __getattr__(self, name):
        return getattr(self.config, name)
    def __setattr__(self, name, value):
        setattr(self.config, name, value)
    def add_optimization_profile(self, profile):
        index = self.config.add_optimization_profile(profile)
        names = ("x", "noise", "t", "label")
        shapes = {name: [list(dims) for dims in profile.get_shape(name)] for name in names}
        added.append([index, shapes, self.config.num_optimization_profiles])
        return index
graph, profiles, integrated = json.loads(sys.stdin.read())
options = BuildOptions("fp16", tuple(map(tuple, profiles)), 1 << 31, single=True)
writer = PlanWriter(Path("."), options, (1, 8, 8), integrated, None, lambda *_: None, lambda *_: None)
network, parser = writer._parse(Path(graph))
config = writer._config("inverse")
try:
    writer._add_profiles("inverse", network, Config(config))
    print(json.dumps([added, config.max_aux_streams]))
except Exception as error:
    print(json.dumps(str(error)))
"""


def read_profiles(graph: Path, profiles: list[tuple[int, int, int]], integrated: bool) -> Any:
    """What the builder's configuration contains for these profiles, or the error message."""
    result = run_with("builder", PROFILES, json.dumps([str(graph), profiles, integrated]))
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


def test_shapes_of_the_profiles_are_read_back(typed_bundle: Path):
    graph = open_bundle(typed_bundle).graphs("fp16")["inverse"]
    added, streams = read_profiles(graph, [(1, 1, 1), (2, 16, 32)], integrated=True)
    assert [(index, count) for index, _, count in added] == [(0, 1), (1, 2)]
    assert added[1][1] == {
        "x": [[2, 1, 8, 8], [16, 1, 8, 8], [32, 1, 8, 8]],
        "noise": [[2, 1, 8, 8], [16, 1, 8, 8], [32, 1, 8, 8]],
        "t": [[2], [16], [32]],
        "label": [[2], [16], [32]],
    }
    assert added[0][1]["x"] == [[1, 1, 8, 8]] * 3
    assert streams == 0
    assert read_profiles(graph, [(1, 4, 16)], integrated=False)[1] != 0


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
