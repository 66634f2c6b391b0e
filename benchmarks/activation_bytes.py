"""Count the bytes of the feature maps that the graphs of a bundle keep in memory, by type and per sample.

    python benchmarks/activation_bytes.py all.bundle

A GPU library fuses operators, and a value inside such a group is not written to memory. Counted are the
values between groups: those that a convolution, concatenation or resampling reads or writes, and those that a
normalisation reads. A conversion of the type belongs to the group before or after it, so what an operator
reads has the narrowest type on the way to it. Attention is left out. The numbers come from the shapes of the
graphs; nothing is measured.
"""

from __future__ import annotations

import argparse
import json
import math
from collections import Counter
from pathlib import Path

import onnx
from onnx import TensorProto, helper

from bcm_edge.runtime.storage.bundle import open_bundle

# Operators that change how a value is stored but not which value it is.
VIEWS = {"Cast", "Reshape", "QuantizeLinear", "DequantizeLinear"}
WRITERS = {"Conv", "Concat", "Resize", "AveragePool"}
READERS = {*WRITERS, "InstanceNormalization"}


def main() -> None:
    """Print a table of the forward graphs, and the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("bundle", type=Path)
    bundle = open_bundle(parser.parse_args().bundle)
    figures = {}
    for precision in bundle.precisions:
        model = onnx.load(bundle.graphs(precision)["forward"], load_external_data=False)
        figures[precision] = feature_map_bytes(model)
        counts = figures[precision]
        types = ", ".join(f"{name} {count / 1e6:.2f} MB" for name, count in counts.items())
        print(f"{precision}: {sum(counts.values()) / 1e6:.2f} MB per sample ({types})")
    print(json.dumps(figures))


def feature_map_bytes(model: onnx.ModelProto) -> dict[str, int]:
    """Return type → bytes of the feature maps in memory, for one sample. The widest type comes first."""
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    maps = {
        value.name: value.type.tensor_type
        for value in (*graph.input, *graph.value_info, *graph.output)
        if is_map(value.type.tensor_type)
    }
    views = {node.output[0]: node.input[0] for node in graph.node if node.op_type in VIEWS}

    def traced(name: str) -> tuple[str, int]:
        """Return the value that a view shows, and the narrowest type on the way."""
        kinds = [maps[name].elem_type] if name in maps else []
        while name in views:
            name = views[name]
            kinds += [maps[name].elem_type] if name in maps else []
        return name, min(kinds, key=width, default=TensorProto.UNDEFINED)

    stored = {name for node in graph.node if node.op_type in WRITERS for name in node.output}
    stored |= {traced(name)[0] for node in graph.node if node.op_type in READERS for name in node.input}
    reads = {traced(name) for node in graph.node if node.op_type not in VIEWS for name in node.input}
    counts: Counter[str] = Counter()
    for name, kind in reads:
        if name in stored and name in maps:
            elements = math.prod(size.dim_value for size in maps[name].shape.dim[1:])
            counts[TensorProto.DataType.Name(kind).lower()] += elements * width(kind)
    return dict(sorted(counts.items(), key=lambda item: -width(TensorProto.DataType.Value(item[0].upper()))))


def is_map(kind: onnx.TypeProto.Tensor) -> bool:
    """Whether a value is a feature map: it has a batch, and the shape [N, C, H, W]."""
    return len(kind.shape.dim) == 4 and kind.shape.dim[0].HasField("dim_param")


def width(kind: int) -> int:
    """Return the bytes of a number of a type."""
    return helper.tensor_dtype_to_np_dtype(kind).itemsize


if __name__ == "__main__":
    main()
