"""The graphs that this project exports, built into engines by the TensorRT-RTX library on a CPU, through the project's own code.

Running an engine takes a GPU, and so does asking one for its types. What came out is read off the plans instead: in which types the weights
of convolutions lie in them.
"""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import Result
from contract import environment, run_with
from networks import TINY, random_model
from onnx import TensorProto, helper, numpy_helper

from bcm_edge.errors import BackendError, BuildError
from bcm_edge.export.engines import child
from bcm_edge.export.engines.child import CHILD, compile_in_child
from bcm_edge.export.engines.plan import BuildPlan
from bcm_edge.export.graphs import write_graphs
from bcm_edge.runtime.engines.facts import BuildOptions
from bcm_edge.runtime.machine.gpu import Gpu
from bcm_edge.runtime.storage.bundle import Bundle, open_bundle
from bcm_edge.runtime.storage.external_data import external_files

Cli = Callable[..., Result]

ORIN = Gpu(99, "Orin", "8.7", 16, 8_000_000_000, True, "12.6")  # of an index that no machine has
PLANS = ("forward", "inverse", "add_noise", "to_uint8")
NAMES = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16", "int8": "int8"}

# before CHILD: a GPU that the process finds and makes its own
FOUND = """
import os
from bcm_edge.export.engines import compiler
from bcm_edge.runtime.machine.gpu import Gpu
orin = Gpu(99, "Orin", "8.7", 16, 8_000_000_000, True, "12.6")
compiler.make_current, compiler.probe, compiler.free_memory = lambda index: None, lambda index: orin, lambda gpu: 5_000_000_000
"""


@pytest.fixture(autouse=True)
def builder(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test's processes have the builder."""
    for name, value in environment("builder").items():
        monkeypatch.setenv(name, value)


@dataclass
class Compiled:
    code: int
    events: list[dict[str, Any]]
    folder: Path

    def of(self, event: str) -> list[dict[str, Any]]:
        return [
            {key: value for key, value in e.items() if key != "event"}
            for e in self.events
            if e["event"] == event
        ]

    def lines(self) -> list[str]:
        return [line["text"] for line in self.of("line")]

    def plan(self, name: str) -> bytes:
        return (self.folder / f"{name}.plan").read_bytes()


def compile_graphs(graphs: dict[str, Path], folder: Path, precision: str = "fp32", **more: Any) -> Compiled:
    """What `bcm-edge build` starts, but without a GPU. more: options, or timing_cache and sample_shape."""
    options = {
        "precision": precision,
        "batch": (1, 4, 16),
        "workspace": 1 << 31,
        "opt_level": 3,
        "stripped": False,
    }
    request = {
        "graphs": {name: str(file) for name, file in graphs.items()},
        "folder": str(folder),
        "sample_shape": more.pop("sample_shape", (1, 8, 8)),
        "timing_cache": str(more.pop("timing_cache", "")),
        "options": {**options, **more},
    }
    folder.mkdir(exist_ok=True)
    ended = run_with("builder", CHILD, given=json.dumps(request))
    return Compiled(ended.returncode, [json.loads(line) for line in ended.stdout.splitlines()], folder)


def types_in_plan(graph: Path, plan: bytes) -> dict[str, int]:
    """Type → convolutions whose weights lie in the plan in it; "bf16+fp32": in both. Channels are last there, made an even number."""
    model = onnx.load(graph)
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    quantised = {
        node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "DequantizeLinear"
    }
    found: Counter[str] = Counter()
    for node in model.graph.node:
        if node.op_type == "Conv":
            weights = numpy_helper.to_array(tensors[quantised.get(node.input[1], node.input[1])])
            last = np.moveaxis(weights, 1, -1)
            even = np.concatenate([last, np.zeros_like(last[..., : last.shape[-1] % 2])], -1)
            kinds = {
                NAMES[form.dtype.name]
                for form in (last, even, last.astype(np.float32))
                if form.tobytes() in plan
            }
            found["+".join(sorted(kinds))] += 1
    return dict(found)


@pytest.mark.parametrize(
    ("precision", "asked", "made"),
    [
        ("fp32", {"fp32": 27}, {"fp32": 27}),
        ("fp16", {"fp16": 27}, {"fp16": 27}),
        (
            "bf16",
            {"bf16": 27},
            {"bf16": 26, "bf16+fp32": 1},
        ),  # the first convolution, of a single channel, lies there twice
        ("int8", None, None),
    ],
)
def test_the_digits_model_builds(
    typed_bundle: Path, tmp_path: Path, precision: str, asked: dict[str, int], made: dict[str, int]
):
    graphs = open_bundle(typed_bundle).graphs(precision)
    if precision == "int8":
        kept = len(json.loads((typed_bundle / "calibration.json").read_text())["kept"])
        assert 0 < kept < 14  # less than half
        asked = made = {"int8": 27 - kept, "fp32": kept}
    built = compile_graphs(graphs, tmp_path / "plans", precision, batch=(3, 7, 23))
    assert built.code == 0, built.events
    (done,) = built.of("done")
    assert done.pop("seconds") > 0
    requested = {"forward": asked, "inverse": asked}
    assert done == {"requested": requested, "types": {}, "wider": {}, "scratch": 0}
    assert {name: types_in_plan(graph, built.plan(name)) for name, graph in graphs.items()} == {
        "forward": made,
        "inverse": made,
    }
    for name in PLANS:
        assert [np.array([batch, 1, 8, 8]).tobytes() in built.plan(name) for batch in (3, 7, 23)] == [
            True
        ] * 3, name
    layers = int(built.lines()[0].split()[1])
    assert built.lines() == [
        f"forward: {layers} layers parsed",
        f"inverse: {layers + 1} layers parsed",
    ]  # which adds noise
    assert {event["phase"] for event in built.of("progress")} == {"Building engine"}
    steps = [(event["plan"], event["done"], event["steps"]) for event in built.of("progress")]
    assert steps == [(name, done, 6) for name in PLANS for done in range(7)]


def test_larger_pictures_in_three_colours_build_in_fp16(tmp_path: Path):
    write_graphs(random_model(), tmp_path, "fp16")
    graphs = {name: tmp_path / f"{name}.fp16.onnx" for name in ("forward", "inverse")}
    built = compile_graphs(graphs, tmp_path / "plans", "fp16", sample_shape=TINY.sample_shape)
    assert built.code == 0, built.events
    assert built.of("done")[0]["requested"] == {"forward": {"fp16": 35}, "inverse": {"fp16": 35}}
    assert {name: types_in_plan(graph, built.plan(name)) for name, graph in graphs.items()} == {
        name: {"fp16": 35} for name in graphs
    }


def test_both_graphs_take_their_weights_from_one_file(typed_bundle: Path, tmp_path: Path):
    """Parsed by themselves they miss it, and say so."""
    graphs = open_bundle(typed_bundle).graphs("fp16")
    assert [external_files(graph.read_bytes()) for graph in graphs.values()] == [{"weights.fp16.bin"}] * 2
    for name, graph in graphs.items():
        alone = tmp_path / shutil.copy(graph, tmp_path)
        built = compile_graphs({name: alone}, tmp_path / "plans", "fp16")
        assert built.code == 2
        (error,) = built.of("error")
        assert error["kind"] == "BuildError"
        assert error["text"].startswith(
            f"{alone}: TensorRT 11.4.0.106 cannot parse it: Failed to import initializer"
        )
        assert f"Failed to open file: {tmp_path / 'weights.fp16.bin'}" in error["text"]


def write_broken(file: Path, kind: str) -> None:
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


BROKEN = {  # in the parser's words, with the node where it tells
    "unknown operator": [
        ': creator && "Plugin not found, are the plugin name, version, and namespace correct?"',
        "(node middle.frobnicate, Frobnicate)",
    ],
    "mixed types": [
        ": Invalid Node - middle.add ITensor::getDimensions: Error Code 4: API Usage Error (middle.add: ElementWiseOperation SUM ",
        "must have same input types. But they are of types Float and Half.",
        "(node middle.add, Add)",
    ],
    "cut off": ["Failed to parse the ONNX model."],
}


@pytest.mark.parametrize("kind", BROKEN)
def test_what_the_parser_says_reaches_the_user_in_full(
    typed_copy: Path, tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch, kind: str
):
    """From the compiling process to the command line; and no engine is left."""
    file = tmp_path / "broken.onnx"
    write_broken(file, kind)
    built = compile_graphs({"forward": file}, tmp_path / "plans")
    assert (built.code, built.of("done")) == (2, [])
    (error,) = built.of("error")
    assert error["kind"] == "BuildError"
    assert error["text"].startswith(f"{file}: TensorRT 11.4.0.106 cannot parse it: ")
    assert [words for words in BROKEN[kind] if words not in error["text"]] == []
    assert "(node , )" not in error["text"]

    monkeypatch.setattr(Bundle, "graphs", lambda self, precision: {"forward": file})
    monkeypatch.setattr(Bundle, "hashes", lambda self, precision: {})
    monkeypatch.setattr(
        "bcm_edge.export.engines.plan.plan_build",
        lambda bundle, options, *_: BuildPlan(bundle, ORIN, "11.4.0.106", options),
    )
    monkeypatch.setattr(child, "CHILD", FOUND + CHILD)
    ended = cli("build", typed_copy)
    assert ended.exit_code == 2
    assert ended.stderr.endswith(f"\nerror: {error['text']}\n")
    assert list((typed_copy / "engines").iterdir()) == []


def test_what_does_not_build_is_told_in_tensorrts_words(typed_bundle: Path, tmp_path: Path):
    """This library leaves weights out on a GPU alone, and finds that out late."""
    built = compile_graphs(
        open_bundle(typed_bundle).graphs("fp16"), tmp_path / "plans", "fp16", stripped=True
    )
    assert built.code == 2
    (error,) = built.of("error")
    assert error["kind"] == "BuildError"
    assert error["text"].startswith(
        "forward: TensorRT 11.4.0.106 cannot build it: IBuilder::buildSerializedNetwork: Error Code 1: Myelin"
    )


@pytest.fixture
def ending(typed_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """What a build says that cannot be finished, with this code for the compiling process."""

    def run(code: str, folder: Path = tmp_path) -> str:
        monkeypatch.setattr(child, "CHILD", code)
        plan = BuildPlan(open_bundle(typed_bundle), ORIN, "11.4.0.106", BuildOptions("fp16"))
        with pytest.raises((BuildError, BackendError)) as caught:
            compile_in_child(plan, folder, lambda line: None, lambda *what: None)
        return str(caught.value)

    return run


def test_without_a_gpu_the_process_says_so(ending: Callable[..., str]):
    assert re.match(
        r"no NVIDIA driver on this machine \(libcuda.so.1 cannot be loaded\)$|no GPU cuda:99 on this machine",
        ending(CHILD),
    )


def test_a_process_that_the_system_kills_ran_out_of_memory(ending: Callable[..., str]):
    helps = "The workspace was {}M: try --workspace {}M, --opt-level 1 or a smaller --batch; on a Jetson close the desktop and add swap."
    killed = "import os, sys\nsys.stdin.read()\nos.kill(os.getpid(), 9)\n"
    assert (
        ending(killed) == f"the build ran out of memory. {helps.format(3814, 1907)}"
    )  # half of all memory, and half of that
    helps = helps.format(2384, 1192)  # half of what is free
    while_parsing = "compiler.PlanWriter.write = lambda *what: os.kill(os.getpid(), 9)\n"
    free = "5.0 GB of 8.0 were free when it began"
    assert ending(FOUND + while_parsing + CHILD) == f"the build ran out of memory: {free}. {helps}"
    in_a_shell = "compiler.PlanWriter.write = lambda *what: os._exit(137)\n"
    assert ending(FOUND + in_a_shell + CHILD) == f"the build ran out of memory: {free}. {helps}"


def test_a_process_that_crashes_leaves_its_last_words(ending: Callable[..., str]):
    ends = {
        "raise ValueError('no such tactic')": "exit code 1: ValueError: no such tactic",
        "import os\nos.write(2, b'one\\ntwo\\n\\n')\nos.abort()": "signal SIGABRT: two",
        "import os\nos._exit(3)": "exit code 3: it left no message",
    }
    for code, end in ends.items():
        assert ending("import sys\nsys.stdin.read()\n" + code) == f"the compiling process ended with {end}"
        assert (
            ending(code, Path("x" * 200_000)) == f"the compiling process ended with {end}"
        )  # before it has read what to do


def test_what_a_library_prints_is_no_event(ending: Callable[..., str]):
    """NVIDIA's compiler for a DLA, for one, writes to stdout."""
    prints = "compiler.PlanWriter.write = lambda *what: os.write(1, b'NVMEDIA_DLA') and os.abort()\n"
    assert ending(FOUND + prints + CHILD) == "the compiling process ended with signal SIGABRT: NVMEDIA_DLA"


def test_a_damaged_timing_cache_is_told_once_and_replaced(tmp_path: Path):
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


def test_a_timing_cache_that_cannot_be_kept_is_told_once(tmp_path: Path):
    (tmp_path / "file").touch()
    cache = tmp_path / "file" / "timing"
    built = compile_graphs({}, tmp_path / "plans", timing_cache=cache)
    assert (built.code, built.lines()) == (
        0,
        [f"warning: {cache}: cannot write the timing cache (File exists)"],
    )
