"""Which layers TensorRT-RTX fuses in exported graphs. Its builder needs no GPU to list the layers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from contract import run_with
from networks import TINY, random_model

from bcm_edge.export.graphs import write_graphs
from bcm_edge.model.checkpoint import load_checkpoint, shipped_checkpoint
from bcm_edge.model.unet import AttentionBlock
from bcm_edge.runtime.storage.shipped import shipped_bundle

BUILT = """
import json, sys
import tensorrt as trt
from bcm_edge.runtime.engines import adapter

class Lines(trt.ILogger):
    def __init__(self):
        trt.ILogger.__init__(self)
        self.all = []

    def log(self, severity, line):
        self.all += line.splitlines()

lines = Lines()
builder = trt.Builder(lines)
network = builder.create_network(adapter.network_flags())
parser = trt.OnnxParser(network, lines)
assert parser.parse_from_file(sys.stdin.read()), parser.get_error(0).desc()
config = builder.create_builder_config()
config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
profile = builder.create_optimization_profile()
for index in range(network.num_inputs):
    tensor = network.get_input(index)
    profile.set_shape(tensor.name, *((batch, *tensor.shape[1:]) for batch in (1, 4, 16)))
config.add_optimization_profile(profile)
assert builder.build_serialized_network(network, config), lines.all[-1]
casts = sum(network.get_layer(index).type == trt.LayerType.CAST for index in range(network.num_layers))
print(json.dumps({"casts": casts, "layers": [line for line in lines.all if line.startswith("Name: ")]}))
"""


@dataclass(frozen=True)
class Layer:
    """A layer of an engine: its name, the nodes of the graph in it, and the shapes of its constants."""

    name: str
    nodes: set[str]
    constants: list[list[int]]


def built(graph: Path) -> tuple[list[Layer], int]:
    """Build a graph. Returns the layers of the engine, and the number of casts in the parsed network."""
    result = run_with("builder", BUILT, str(graph))
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout.splitlines()[-1])
    layers = []
    for line in report["layers"]:
        _, _, constants = line.partition("Constants: [")
        shapes = re.findall(r"Dimensions: \[([-\d,]*)\]", constants.partition("Outputs: [")[0])
        layers.append(
            Layer(
                line.removeprefix("Name: ").partition(",")[0],
                set(re.findall(r"\[ONNX Layer: ([^\]]+)\]", line)),
                [[int(size) for size in shape.split(",") if size] for shape in shapes],
            )
        )
    return layers, report["casts"]


def named(layers: Iterable[Layer], part: str) -> list[Layer]:
    """The layers whose names contain this."""
    return [layer for layer in layers if part in layer.name]


@pytest.mark.parametrize("attention", ["cosine", "dot_product"])
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_attention_is_one_kernel(tmp_path: Path, precision: str, attention: str):
    model = random_model(replace(TINY, attention=attention))
    blocks = {name for name, module in model.network.named_modules() if isinstance(module, AttentionBlock)}
    names = write_graphs(model, tmp_path, precision)
    layers, _ = built(tmp_path / names["forward"])
    fused = named(layers, "_gemm_mha")
    assert len(fused) == len(blocks) == 4
    assert not named(layers, "/MatMul")  # a product that is a kernel of its own
    inside = set().union(*(layer.nodes for layer in fused))
    for block in blocks:
        assert {f"{block}/{node}" for node in ("MatMul", "Softmax", "MatMul_2")} <= inside


@pytest.mark.parametrize(("norms", "fewest", "most"), [("float32", 40, 50), ("half", 5, 10)])
def test_normalisations_of_float16_graphs(tmp_path: Path, norms: str, fewest: int, most: int):
    """With float32, casts are part of the kernels of normalisations, of which each has its scale and bias."""
    model = load_checkpoint(shipped_checkpoint()).model()
    names = write_graphs(model, tmp_path, "fp16", fp16_norms=norms)
    layers, casts = built(tmp_path / names["forward"])
    assert fewest <= casts <= most
    assert len(named(layers, "_gemm_mha")) == 1
    alone = [layer.nodes for layer in layers if re.match("__myl_Cast_", layer.name)]
    assert alone in ([], [{"middle_block.1/Cast"}])  # the input of the convolution for attention
    fused = named(layers, "Gnor")
    if norms == "float32":
        assert len(fused) == 18
        affine = {node for layer in fused for node in layer.nodes if node.endswith("/Affine")}
        assert len(affine) == 10


def test_weights_of_a_shipped_bundle_are_joined_by_the_builder():
    """The Concat of the vectors' weights is computed once, when the engine is built."""
    layers, _ = built(shipped_bundle("digits") / "forward.onnx")
    (product,) = [layer for layer in layers if "emb_layers.1/Gemm" in layer.nodes]
    assert [128, 832] in product.constants
    joined = [layer for layer in layers if "emb_layers.1.weight/Concat" in layer.nodes]
    assert joined == [product]
