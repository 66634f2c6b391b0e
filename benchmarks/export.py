"""Exporting the ImageNet-64 network: seconds, peak memory, size of the bundle, and what verification takes of it.

    python benchmarks/export.py

The checkpoint has random weights and is saved as the authors save theirs. Two whole processes, without and with verification; the
last line of stdout is the result as JSON. Needs 4.5 GB of temporary files.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from networks import prepare


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        checkpoint, _, _ = prepare(Path(folder), imagenet64=True)
        alone = measure(checkpoint, Path(folder) / "alone", "--no-verify")
        verified = measure(checkpoint, Path(folder) / "verified")
    print(f"{'':22}{'wall s':>8}{'peak GB':>9}{'bundle GB':>11}")
    for name, values in (("without verification", alone), ("with", verified)):
        print(f"{name:22}{values['wall_s']:8.1f}{values['peak_gb']:9.2f}{values['bundle_gb']:11.3f}")
    print(json.dumps({"without_verification": alone, "with_verification": verified}))


def measure(checkpoint: Path, bundle: Path, *options: str) -> dict[str, float]:
    """One export as a user types it."""
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
