"""From process start to the first image: bcm-edge on a bundle, against the authors' way (torch, load the checkpoint, one call).

    python benchmarks/first_image.py                 the shipped model
    python benchmarks/first_image.py --imagenet64    the ImageNet-64 network with random weights (makes 3.5 GB of temporary files)

Both sides are whole processes on one processor, in turn; the table gives medians of seconds and of peak resident memory, and the
last line of stdout is the same as JSON. The bundle has been opened once before, as on any start but the first; the first start,
which fills the cache, is reported by itself.
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
from pathlib import Path

from networks import prepare

TORCH_WAY = """
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
EDGE_WAY = """
import sys, bcm_edge
assert bcm_edge.load(sys.argv[1]).generate(1, labels=0).shape[0] == 1
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--imagenet64", action="store_true")
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["BCM_EDGE_CACHE_DIR"] = f"{folder}/cache"
        checkpoint, config, bundle = prepare(Path(folder), arguments.imagenet64)
        time.sleep(3)  # hashes of files younger than two seconds are not remembered
        torch_command = [sys.executable, "-c", TORCH_WAY, str(checkpoint), config]
        edge_command = [sys.executable, "-c", EDGE_WAY, str(bundle)]
        first = measure(edge_command)
        time.sleep(3)
        measure(edge_command)
        measure(torch_command)
        pairs = [(measure(torch_command), measure(edge_command)) for _ in range(arguments.runs)]
    report("imagenet64" if arguments.imagenet64 else "digits", first, pairs)


def measure(command: list[str]) -> tuple[float, float, float]:
    """(wall seconds, processor seconds, peak resident MB) of one run on one processor."""
    started = time.perf_counter()
    child = subprocess.Popen(
        command, preexec_fn=lambda: os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    )
    _, status, usage = os.wait4(child.pid, 0)
    wall = time.perf_counter() - started
    if status:
        sys.exit(f"failed: {command}")
    return wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1000


def report(
    name: str, first: tuple[float, ...], pairs: list[tuple[tuple[float, ...], tuple[float, ...]]]
) -> None:
    columns = ("wall s", "processor s", "peak MB")
    print(
        f"{name}, medians of {len(pairs)} runs each\n{'':14}{'torch':>10}{'bcm-edge':>10}{'ratio':>8}   first start"
    )
    values = {}
    for i, column in enumerate(columns):
        ours, theirs = statistics.median(b[i] for _, b in pairs), statistics.median(a[i] for a, _ in pairs)
        ratio = statistics.median(b[i] / a[i] for a, b in pairs)
        print(f"{column:14}{theirs:10.2f}{ours:10.2f}{ratio:8.2f}{first[i]:14.2f}")
        values[column] = {"torch": theirs, "bcm_edge": ours, "ratio": ratio, "first_start": first[i]}
    print(json.dumps({"network": name, **values}))


if __name__ == "__main__":
    main()
