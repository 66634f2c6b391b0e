"""Compare bcm-edge on a CPU with PyTorch as the authors run it, torch.compile, and diffusers' pipeline.

    python benchmarks/peers.py                                       the shipped model, in fp32, bf16 and int8
    python benchmarks/peers.py --network imagenet64 --bundle BUNDLE  an exported ImageNet-64 network

Each variant plays one network call, 80>0.002, with the same noise and weights; the weights come from the
bundle. The measurement with each number of processors is a process, which gets its processors before a
library counts them. In it, the variants of a batch size take turns.

The Markdown table has medians in ms, and in brackets how many times as fast as PyTorch eager the variant is;
"=" means no difference beyond noise. "s until ready" is the time from weights in memory to the first image,
with torch imported and all caches empty. A variant that cannot run here is listed with the reason. The last
line of standard output is the figures as JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from networks import prepare
from peer_variants import EAGER, variant_makers
from result_files import add_output, origin, write_figures


def main() -> None:
    """Measure with one processor and with all, and print the table."""
    arguments = arguments_parser().parse_args()
    batches = [int(word) for word in arguments.batch.split(",")]
    if arguments.measure:
        print(json.dumps([measure(arguments.bundle, batch, arguments.seconds) for batch in batches]))
        return
    measured_by = origin()
    with tempfile.TemporaryDirectory() as folder:
        bundle = arguments.bundle or make_bundle(Path(folder), arguments.network)
        empty_caches = {
            "BCM_EDGE_CACHE_DIR": f"{folder}/cache",
            "TORCHINDUCTOR_CACHE_DIR": f"{folder}/inductor",
        }
        os.environ |= empty_caches
        measured = {
            cores: on_processors(cores, bundle, arguments.batch, arguments.seconds)
            for cores in sorted({1, len(os.sched_getaffinity(0))})
        }
    print_report(arguments.network, measured)
    figures = {"network": arguments.network, "program": program_text(), "processors": measured}
    write_figures(arguments.output, measured_by, figures)
    print(json.dumps(figures))


def arguments_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    add = parser.add_argument
    add("--network", choices=["digits", "imagenet64"], default="digits")
    add("--bundle", type=Path, help="of that network, in the precisions to measure (default: it is exported)")
    add("--batch", default="1,8", help="batch sizes, separated by commas (default: 1,8)")
    add(
        "--seconds",
        type=float,
        default=5,
        help="per variant, batch size and number of processors (default: 5)",
    )
    add("--measure", action="store_true", help=argparse.SUPPRESS)  # the process of `on_processors`
    add_output(parser)
    return parser


def program_text() -> str:
    """Return the schedule that is played."""
    from bcm_edge.runtime.schedule import ONE_STEP

    return str(ONE_STEP)


def make_bundle(folder: Path, network: str) -> Path:
    """Export a bundle in all precisions of OURS. This takes half an hour for ImageNet-64, because of int8."""
    return prepare(folder, network == "imagenet64", "fp32,bf16,int8")[2]


def on_processors(cores: int, bundle: Path, batch: str, seconds: float) -> list[dict[str, Any]]:
    """Return the results of `measure` for each batch size, from a process on this number of processors."""
    processors = sorted(os.sched_getaffinity(0))[:cores]
    command = [sys.executable, __file__, "--measure", "--bundle", str(bundle)]
    command += ["--batch", batch, "--seconds", str(seconds)]
    print(f"on {cores} of the processors …", file=sys.stderr)
    ended = subprocess.run(
        command,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, processors),
    )
    return json.loads(ended.stdout.splitlines()[-1])


@dataclass
class Prepared:
    """A variant that is ready."""

    # plays once, and returns images
    run: Callable[[], Any]
    # the first images
    images: Any
    # seconds until the first images
    ready_s: float


def measure(path: Path, batch: int, seconds: float) -> dict[str, Any]:
    """Measure one batch size.

    Returns the figures of each variant, the variants that cannot run with the reasons, and the share of the
    processors that other processes took.
    """
    import torch

    from bcm_edge.export.restore import restored_model
    from bcm_edge.runtime.checks.benchmark import interleave
    from bcm_edge.runtime.machine.load import OtherProcesses
    from bcm_edge.runtime.machine.resources import threads
    from bcm_edge.runtime.storage.bundle import open_bundle
    from bcm_edge.runtime.wording import first_line

    torch.set_num_threads(threads())
    bundle = open_bundle(path)
    variants: dict[str, Prepared] = {}
    skipped = {}
    for name, prepare_variant in variant_makers(bundle, restored_model(bundle), batch).items():
        print(f"  batch {batch}: {name}", file=sys.stderr)
        started = time.perf_counter()
        try:
            run = prepare_variant()
            images = run().clip(-1, 1)
        except Exception as error:  # of any library
            skipped[name] = f"{type(error).__name__}: {first_line(error)}"
            continue
        variants[name] = Prepared(run, images, time.perf_counter() - started)
    others = OtherProcesses()
    turns = interleave([variant.run for variant in variants.values()], seconds)
    taken = others.share()
    rows = rows_of(variants, turns, batch)
    return {"batch": batch, "taken_by_others": taken, "sides": rows, "skipped": skipped}


def rows_of(
    variants: dict[str, Prepared], turns: list[list[list[float]]], batch: int
) -> dict[str, dict[str, Any]]:
    """Return the figures of each variant. turns: of each variant, the seconds of each run, turn by turn."""
    from bcm_edge.runtime.accuracy import relative_l2
    from bcm_edge.runtime.checks.benchmark import differ, summarise
    from bcm_edge.runtime.checks.starts import Start

    results = {
        name: summarise(Side(name), batch, 1, own, Start(0, 0), None, 1)
        for name, own in zip(variants, turns, strict=True)
    }
    eager, images = results[EAGER], variants[EAGER].images
    rows = {}
    for name, result in results.items():
        rows[name] = {
            "ms": result.p50_ms,
            "runs": result.runs,
            "ready_s": variants[name].ready_s,
            "relative_l2": relative_l2(variants[name].images, images),
            "ratio": eager.p50_ms / result.p50_ms,
            "beyond_noise": differ(result, eager),
        }
    return rows


@dataclass(frozen=True)
class Side:
    """The name of a side of the comparison, with the attributes of a backend that `summarise` reads."""

    name: str
    precision: str = ""
    device: str = ""


def print_report(network: str, measured: dict[int, list[dict[str, Any]]]) -> None:
    """Print the table in Markdown, the load by other processes, and the variants that were skipped.

    measured: number of processors → results of `measure`.
    """
    cells: dict[str, list[str]] = {}
    columns, skipped, taken = [], {}, []
    for cores, batches in measured.items():
        for each in batches:
            columns.append(f"{cores} core{'s' * (cores > 1)}, batch {each['batch']}: ms")
            taken.append(each["taken_by_others"] or 0)
            skipped |= each["skipped"]
            for name, row in each["sides"].items():
                cells.setdefault(name, []).append(cell(name, row))
    first = next(iter(measured.values()))[0]["sides"]
    print(f"| {network}, `{program_text()}` | {' | '.join(columns)} | relative L2 to eager | s until ready |")
    print(f"|---|{'---:|' * (len(columns) + 2)}")
    for name, own in cells.items():
        row = first[name]
        print(f"| {name} | {' | '.join(own)} | {row['relative_l2']:.1e} | {row['ready_s']:.1f} |")
    shares = ", ".join(f"{share:.0%}" for share in taken)
    print(f"\nShare of all processors that other processes took, column by column: {shares}.")
    for name, reason in skipped.items():
        print(f"\nskipped: {name}: {reason}")


def cell(name: str, row: dict[str, Any]) -> str:
    """Return the time of a variant, and its speed relative to eager."""
    if name == EAGER:
        return f"{row['ms']:.2f}"
    times = f"{row['ratio']:.1f}×" if row["beyond_noise"] else "="
    return f"{row['ms']:.2f} ({times})"


if __name__ == "__main__":
    main()
