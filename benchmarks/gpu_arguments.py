"""The command line of benchmarks/gpu.py."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from gpu_report import BATCHES
from gpu_results import SETS

SCHEDULES = ("one-step", "mixture-4", "invert-2")


def arguments_parser(description: str | None) -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=description, formatter_class=form)
    add = parser.add_argument
    networks = ["imagenet64", "digits"]
    add("--network", choices=networks, default=networks[0], help="imagenet64 has random weights")
    batches, names = ",".join(map(str, BATCHES)), ",".join(SCHEDULES)
    add(
        "--batch",
        type=sizes,
        default=batches,
        help=f"batch sizes, powers of two, separated by commas (default: {batches})",
    )
    add(
        "--variants",
        choices=list(SETS),
        default="main",
        help="main: one variant per library (default); options: TensorRT and CUDA with other options",
    )
    add("--schedules", type=schedules, default=names, help=f"names, separated by commas (default: {names})")
    add("--seconds", type=positive, default=3.0, help="per variant, schedule and batch size (default: 3)")
    add(
        "--matrix",
        type=count,
        default=8192,
        help="rows and columns of the fp16 matrix product (default: 8192)",
    )
    add(
        "--budget",
        type=positive,
        default=math.inf,
        help="wall-clock seconds for the whole call (default: no limit)",
    )
    add("--folder", type=Path, help="keeps bundle and engines for later calls; 5 GB")
    add(
        "-o", dest="output", type=Path, help="JSON file that keeps the figures; an existing file is continued"
    )
    add("--child", nargs=2, help=argparse.SUPPRESS)  # the work of a process of its own, and its arguments
    return parser


def sizes(text: str) -> list[int]:
    """Parse batch sizes such as 1,16,256."""
    batches = [int(word) if word.isdecimal() else 0 for word in text.split(",")]
    if any(batch < 1 or batch & (batch - 1) for batch in batches) or len(set(batches)) < len(batches):
        reason = "because an engine fills any other batch up to the next one"
        raise argparse.ArgumentTypeError(
            f"batch sizes must be different powers of two (1, 2, 4, …), {reason}"
        )
    return batches


def count(text: str) -> int:
    """Parse a positive whole number."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive whole number")
    return int(text)


def positive(text: str) -> float:
    """Parse a positive number."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not number > 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return number


def schedules(text: str) -> str:
    """Check names of schedules, separated by commas."""
    from bcm_edge.runtime.schedule import DEFAULT_SCHEDULES

    unknown = [name for name in text.split(",") if name not in DEFAULT_SCHEDULES]
    if unknown:
        raise argparse.ArgumentTypeError(
            f"unknown schedule {', '.join(unknown)}; there are {', '.join(DEFAULT_SCHEDULES)}"
        )
    return text
