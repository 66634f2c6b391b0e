"""What the chain costs over bare session calls, and what `import bcm_edge` costs over `import numpy`.

    python benchmarks/overhead.py                 the shipped model
    python benchmarks/overhead.py --imagenet64    the ImageNet-64 network with random weights

Both sides of a comparison alternate in one run on one processor; medians are given, and as JSON in the last line of stdout.
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

SCHEDULE = "80>2.4>0.002"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--imagenet64", action="store_true")
    parser.add_argument("--runs", type=int, default=15)
    arguments = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as folder:
        os.environ["BCM_EDGE_CACHE_DIR"] = f"{folder}/cache"
        _, _, bundle = prepare(Path(folder), arguments.imagenet64)
        chain, bare = chain_and_bare(bundle, arguments.runs)
    imports = [(import_seconds("numpy"), import_seconds("bcm_edge")) for _ in range(arguments.runs)]
    overhead = statistics.median(c / b for c, b in zip(chain, bare, strict=True)) - 1
    numpy_s, ours = (statistics.median(times) for times in zip(*imports, strict=True))
    name = "imagenet64" if arguments.imagenet64 else "digits"
    print(
        f"{name}, {SCHEDULE}, one image: bare {statistics.median(bare) * 1e3:.2f} ms, chain {statistics.median(chain) * 1e3:.2f} ms"
    )
    print(
        f"chain over bare: {overhead:+.1%}    python -c 'import numpy': {numpy_s:.3f} s    'import bcm_edge': {ours:.3f} s"
    )
    print(
        json.dumps(
            {
                "network": name,
                "chain_overhead": overhead,
                "import_numpy_s": numpy_s,
                "import_bcm_edge_s": ours,
            }
        )
    )


def chain_and_bare(bundle: Path, runs: int) -> tuple[list[float], list[float]]:
    """Seconds of one image through the API, and through the same session called by hand, in turn."""
    import bcm_edge
    from bcm_edge.runtime.backends.onnxruntime import OnnxRuntimeBackend

    bcm = bcm_edge.load(bundle)
    program = bcm_edge.parse_schedule(SCHEDULE)
    x = 80 * np.random.default_rng(0).normal(size=(1, *bcm.sample_shape)).astype(np.float32)
    levels = [{"t": np.array([m.t], np.float32), "u": np.array([m.u], np.float32)} for m in program.moves]
    feeds = [{**level, "label": np.zeros(1, np.int64)} for level in levels]
    bcm.generate(1, schedule=program, labels=0)
    assert isinstance(bcm.backend, OnnxRuntimeBackend)
    session = bcm.backend._session("forward")  # the one the chain uses

    def by_hand() -> None:
        state = x
        for feed in feeds:
            state = session.run(None, {"x": state, **feed})[0]

    times = [
        (seconds(lambda: bcm.generate(1, schedule=program, labels=0)), seconds(by_hand)) for _ in range(runs)
    ]
    return [c for c, _ in times], [b for _, b in times]


def import_seconds(module: str) -> float:
    return seconds(lambda: subprocess.run([sys.executable, "-c", f"import {module}"], check=True))


def seconds(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
