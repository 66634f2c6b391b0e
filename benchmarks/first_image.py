"""Measure the time from process start to the first image: bcm-edge against the authors' code in torch.

    python benchmarks/first_image.py                 the shipped model
    python benchmarks/first_image.py --imagenet64    the ImageNet-64 network with random weights

The authors' code imports torch, loads a checkpoint and makes one network call. Each run of each side is a
process on one processor, and the sides take turns. The table has medians of seconds and of peak resident
memory. The last line of standard output is the figures as JSON.

The first start of bcm-edge fills the cache with optimised graphs; it is measured separately. All other starts
use the cache. --imagenet64 needs 3.5 GB for temporary files.
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
from collections.abc import Sequence
from pathlib import Path

from networks import prepare
from result_files import add_output, origin, write_figures

TORCH_CODE = """
import json, sys, torch
from bcm_edge.model.config import NetworkConfig
from bcm_edge.model.preconditioning import ConsistencyModel
config = NetworkConfig.from_json(json.loads(sys.argv[2]))
model = ConsistencyModel(config)
model.network.load_state_dict(torch.load(sys.argv[1], map_location="cpu", weights_only=True))
model.eval()
with torch.no_grad():
    x = 80 * torch.randn(1, *config.sample_shape)
    label = None if config.num_classes is None else torch.tensor([0])
    assert model(x, torch.tensor([80.0]), torch.tensor([0.002]), label).isfinite().all()
"""
EDGE_CODE = """
import sys, bcm_edge
assert bcm_edge.load(sys.argv[1]).generate(1, labels=0).shape[0] == 1
"""
COLUMNS = ("wall s", "processor s", "peak MB")  # the values of a Run, in order

Run = tuple[float, float, float]  # wall seconds, processor seconds, peak resident MB


def main() -> None:
    """Measure both sides, and print a table."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("--imagenet64", action="store_true", help="the network, in place of the shipped one")
    parser.add_argument("--runs", type=int, default=5, help="of each side (default: 5)")
    add_output(parser)
    arguments = parser.parse_args()
    measured_by = origin()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["BCM_EDGE_CACHE_DIR"] = f"{folder}/cache"
        checkpoint, config, bundle = prepare(Path(folder), arguments.imagenet64)
        time.sleep(3)  # hashes of files younger than two seconds are not saved
        torch_command = [sys.executable, "-c", TORCH_CODE, str(checkpoint), config]
        edge_command = [sys.executable, "-c", EDGE_CODE, str(bundle)]
        first = measure(edge_command)
        time.sleep(3)
        measure(edge_command)
        measure(torch_command)
        pairs = [(measure(torch_command), measure(edge_command)) for _ in range(arguments.runs)]
    figures = {"network": "imagenet64" if arguments.imagenet64 else "digits", **medians(first, pairs)}
    print_table(figures, arguments.runs)
    write_figures(arguments.output, measured_by, {**figures, "runs": arguments.runs})
    print(json.dumps(figures))


def measure(command: list[str]) -> Run:
    """Run a command on one processor."""
    processor = min(os.sched_getaffinity(0))
    started = time.perf_counter()
    child = subprocess.Popen(command, preexec_fn=lambda: os.sched_setaffinity(0, {processor}))
    _, status, usage = os.wait4(child.pid, 0)
    wall = time.perf_counter() - started
    if status:
        sys.exit(f"failed: {command}")
    return wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1000


def medians(first: Run, pairs: Sequence[tuple[Run, Run]]) -> dict[str, dict[str, float]]:
    """Return the figures of each column. first: the first start. pairs: runs of torch and of bcm-edge."""
    figures = {}
    for i, column in enumerate(COLUMNS):
        figures[column] = {
            "torch": statistics.median(theirs[i] for theirs, _ in pairs),
            "bcm_edge": statistics.median(ours[i] for _, ours in pairs),
            "ratio": statistics.median(ours[i] / theirs[i] for theirs, ours in pairs),
            "first_start": first[i],
        }
    return figures


def print_table(figures: dict, runs: int) -> None:
    """Print the figures for people."""
    print(f"{figures['network']}, medians of {runs} runs each")
    print(f"{'':14}{'torch':>10}{'bcm-edge':>10}{'ratio':>8}   first start")
    for column in COLUMNS:
        own = figures[column]
        numbers = f"{own['torch']:10.2f}{own['bcm_edge']:10.2f}{own['ratio']:8.2f}{own['first_start']:14.2f}"
        print(f"{column:14}{numbers}")


if __name__ == "__main__":
    main()
