"""Measure the export of the ImageNet-64 network: seconds, peak memory, and size of the bundle.

    python benchmarks/export.py -o benchmarks/results/export-imagenet64.json

The network has random weights, in a checkpoint like those of the authors. The export is measured twice, each
time as a process: without and with verification. The last line of standard output is the figures as JSON. The
benchmark needs 4.5 GB for temporary files.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from networks import prepare
from result_files import add_output, origin, write_figures


def main() -> None:
    """Measure both exports, and print a table."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    add_output(parser)
    output, measured_by = parser.parse_args().output, origin()
    with tempfile.TemporaryDirectory() as folder:
        checkpoint, _, _ = prepare(Path(folder), imagenet64=True)
        figures = {
            "without_verification": measure(checkpoint, Path(folder) / "alone", "--no-verify"),
            "with_verification": measure(checkpoint, Path(folder) / "verified"),
        }
    print(f"{'':22}{'wall s':>8}{'peak GB':>9}{'bundle GB':>11}")
    for name, own in figures.items():
        print(f"{name.replace('_', ' '):22}{own['wall_s']:8.1f}{own['peak_gb']:9.2f}{own['bundle_gb']:11.3f}")
    write_figures(output, measured_by, figures)
    print(json.dumps(figures))


def measure(checkpoint: Path, bundle: Path, *options: str) -> dict[str, float]:
    """Run `bcm-edge export` as a process.

    Returns wall_s: its seconds; peak_gb: its peak resident memory; bundle_gb: the size of the bundle.
    """
    command = ["bcm-edge", "export", str(checkpoint), "--preset", "imagenet64", "-o", str(bundle), *options]
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    started = time.perf_counter()
    child = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    wall = time.perf_counter() - started
    if status:
        sys.exit(f"failed: {command}")
    size = sum(file.stat().st_size for file in bundle.iterdir())
    return {"wall_s": wall, "peak_gb": usage.ru_maxrss / 1e6, "bundle_gb": size / 1e9}


if __name__ == "__main__":
    main()
