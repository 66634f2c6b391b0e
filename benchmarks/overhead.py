"""Measure the overhead of the chain over bare session calls, and of `import bcm_edge` over `import numpy`.

    python benchmarks/overhead.py                 the shipped model
    python benchmarks/overhead.py --imagenet64    the ImageNet-64 network with random weights

The two sides of a comparison take turns on one processor. The figures are medians. The last line of standard
output is the figures as JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from networks import prepare
from result_files import add_output, origin, write_figures

SCHEDULE = "80>2.4>0.002"


def main() -> None:
    """Measure and print the medians."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("--imagenet64", action="store_true", help="the network, in place of the shipped one")
    parser.add_argument("--runs", type=int, default=15, help="of each side (default: 15)")
    add_output(parser)
    arguments = parser.parse_args()
    measured_by = origin()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as folder:
        os.environ["BCM_EDGE_CACHE_DIR"] = f"{folder}/cache"
        _, _, bundle = prepare(Path(folder), arguments.imagenet64)
        chain, bare = chain_and_bare(bundle, arguments.runs)
    imports = [(import_seconds("numpy"), import_seconds("bcm_edge")) for _ in range(arguments.runs)]
    figures = {
        "network": "imagenet64" if arguments.imagenet64 else "digits",
        "schedule": SCHEDULE,
        "runs": arguments.runs,
        "bare_ms": statistics.median(bare) * 1e3,
        "chain_ms": statistics.median(chain) * 1e3,
        "chain_overhead": statistics.median(c / b for c, b in zip(chain, bare, strict=True)) - 1,
        "import_numpy_s": statistics.median(numpy for numpy, _ in imports),
        "import_bcm_edge_s": statistics.median(ours for _, ours in imports),
    }
    print(
        "{network}, {schedule}, one image: bare {bare_ms:.2f} ms, chain {chain_ms:.2f} ms".format(**figures)
    )
    print(f"chain over bare: {figures['chain_overhead']:+.1%}")
    print(
        "import numpy: {import_numpy_s:.3f} s, import bcm_edge: {import_bcm_edge_s:.3f} s".format(**figures)
    )
    write_figures(arguments.output, measured_by, figures)
    print(json.dumps(figures))


def chain_and_bare(bundle: Path, runs: int) -> tuple[list[float], list[float]]:
    """Return seconds of one image through the API, and through the same session called directly, in turn."""
    import bcm_edge
    from bcm_edge.runtime.backends.onnxruntime import OnnxRuntimeBackend

    bcm = bcm_edge.load(bundle)
    program = bcm_edge.parse_schedule(SCHEDULE)
    x = 80 * np.random.default_rng(0).normal(size=(1, *bcm.sample_shape)).astype(np.float32)
    feeds = [
        {
            "t": np.array([move.t], np.float32),
            "u": np.array([move.u], np.float32),
            "label": np.zeros(1, np.int64),
        }
        for move in program.moves
    ]
    bcm.generate(1, schedule=program, labels=0)
    assert isinstance(bcm.backend, OnnxRuntimeBackend)
    session = bcm.backend._session("forward")  # the one that the chain uses

    def chain() -> None:
        bcm.generate(1, schedule=program, labels=0)

    def bare() -> None:
        state = x
        for feed in feeds:
            state = session.run(None, {"x": state, **feed})[0]

    times = [(seconds(chain), seconds(bare)) for _ in range(runs)]
    return [c for c, _ in times], [b for _, b in times]


def import_seconds(module: str) -> float:
    """Return the seconds of a process that imports a module."""
    return seconds(lambda: subprocess.run([sys.executable, "-c", f"import {module}"], check=True))


def seconds(run: Callable[[], object]) -> float:
    """Return the wall-clock seconds of a call."""
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
