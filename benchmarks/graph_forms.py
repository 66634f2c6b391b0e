"""Compare the speed of the graphs of two bundles of the same model, which take turns in one run.

    python benchmarks/graph_forms.py --pair digits before/digits.bundle digits -o FILE

A pair is a name, the bundle with the earlier graphs and the bundle with the new graphs. To get the earlier
graphs, export the model with the earlier version of this package. Each turn is one network call of each
bundle, towards the image. Times are processor times of this process, so that they do not contain the time of
other processes; run it on one core. The ratio is the median of the ratios of all turns. The relative L2
distance between both outputs is measured, too.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import statistics
import time
from typing import Any

import networks  # noqa: F401 (makes this checkout importable as bcm_edge)
import numpy as np
import onnx
from result_files import add_output, origin, write_figures

from bcm_edge.runtime.accuracy import relative_l2
from bcm_edge.runtime.backends import open_backend
from bcm_edge.runtime.noise import standard_normal
from bcm_edge.runtime.schedule import SIGMA_MAX, SIGMA_MIN, Move
from bcm_edge.runtime.storage.bundle import Bundle, open_bundle
from bcm_edge.runtime.storage.shipped import located

MOVE = Move(SIGMA_MAX, SIGMA_MIN)
FEWEST_TURNS = 5


def main() -> None:
    """Measure all pairs, and print a line for each backend and batch size."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    pair = ("NAME", "BEFORE", "AFTER")
    parser.add_argument("--pair", nargs=3, metavar=pair, action="append", required=True)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--backend", nargs="+", default=["onnxruntime", "openvino"])
    parser.add_argument("--seconds", type=float, default=10, help="at least, for each line")
    add_output(parser)
    arguments = parser.parse_args()
    measured_by = origin()
    lines = []
    for name, *paths in arguments.pair:
        bundles = [open_bundle(located(path)) for path in paths]
        for backend, batch in itertools.product(arguments.backend, arguments.batch):
            line = {"network": name, **compared(bundles, backend, batch, arguments.seconds)}
            print("  ".join(f"{key} {value}" for key, value in line.items()), flush=True)
            lines.append(line)
    write_figures(arguments.output, measured_by, lines)


def compared(bundles: list[Bundle], name: str, batch: int, seconds: float) -> dict[str, Any]:
    """Return the figures of the fp32 graphs of two bundles on a backend."""
    model = bundles[0].manifest.model
    x = SIGMA_MAX * standard_normal(range(batch), model.sample_shape, 0)
    labels = None if model.num_classes is None else np.arange(batch) % model.num_classes
    backends = [open_backend(name, bundle, "fp32") for bundle in bundles]
    outputs = [backend.play_move(x, None, MOVE, labels) for backend in backends]
    times: list[list[float]] = [[], []]
    end = time.perf_counter() + seconds
    order = [0, 1]
    while time.perf_counter() < end or len(times[0]) < FEWEST_TURNS:
        order.reverse()  # neither is always the first
        for index in order:
            started = time.process_time()
            backends[index].play_move(x, None, MOVE, labels)
            times[index].append(1000 * (time.process_time() - started))
    for backend in backends:
        backend.close()
    gc.collect()  # the sessions, before those of the next line are opened
    ratios = [before / after for before, after in zip(*times, strict=True)]
    return {
        "backend": name,
        "batch": batch,
        "turns": len(ratios),
        "faster": round(statistics.median(ratios), 3),
        "faster_by_minimum": round(min(times[0]) / min(times[1]), 3),
        "p50_ms": [round(statistics.median(measured), 4) for measured in times],
        "minimum_ms": [round(min(measured), 4) for measured in times],
        "nodes": [nodes(bundle) for bundle in bundles],
        "relative_l2": float(f"{relative_l2(outputs[1], outputs[0]):.2g}"),
    }


def nodes(bundle: Bundle) -> int:
    """Return the number of nodes of a graph, without those that only load a weight in another type."""
    graph = onnx.load(bundle.graphs("fp32")["forward"], load_external_data=False).graph
    stored = {tensor.name for tensor in graph.initializer}
    computed = []
    for node in graph.node:
        if stored.issuperset(node.input):
            stored.update(node.output)
        else:
            computed.append(node)
    return len(computed)


if __name__ == "__main__":
    main()
