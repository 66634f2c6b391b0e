"""Engines of several optimisation profiles, and single engines, built by the TensorRT-RTX library."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from compiling import compile_graphs, types_in_plan
from contract import run_with
from onnx import numpy_helper

from bcm_edge.runtime.storage.bundle import open_bundle

pytestmark = pytest.mark.usefixtures("builder")


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
