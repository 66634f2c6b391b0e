"""Run the compiling process of `bcm-edge build` without a GPU, and read the plans that it writes."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from contract import run_with
from onnx import numpy_helper

from bcm_edge.export.engines.child import CHILD

NAMES = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16", "int8": "int8"}


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
