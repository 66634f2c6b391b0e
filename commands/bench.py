"""bcm-edge bench: the speed of a bundle on this machine, in every precision on every backend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from ..errors import BackendError, NonFiniteError
from ..runtime.arguments import check_number
from ..runtime.backends import MODULES, info, playing, wrong_device
from ..runtime.backends.base import Backend
from ..runtime.checks import benchmark, starts
from ..runtime.checks.benchmark import Result
from ..runtime.checks.operations import flop_per_call
from ..runtime.checks.products import (
    MATRIX,
    Peak,
    Product,
    open_products,
    peak_for,
    peaks,
    without_share_above_peak,
)
from ..runtime.machine.environment import environment
from ..runtime.machine.install_hints import install_line
from ..runtime.machine.load import OtherProcesses
from ..runtime.machine.placement import Placement
from ..runtime.schedule import Schedule
from ..runtime.storage.bundle import Bundle, open_bundle
from ..runtime.wording import counted
from .bench_report import not_run_lines, report
from .bench_variants import NotRun, Variant, variants
from .console import progress, result
from .options import (
    bundle_argument,
    device_option,
    json_option,
    parse_precisions,
    precisions_option,
    threads_option,
)
from .schedules import timed


@click.command(
    short_help="Measure the speed of a bundle on this machine.",
    epilog="Example:  bcm-edge bench digits --schedule mixture-4 --batch 1,8",
)
@bundle_argument
@click.option(
    "--schedule",
    help="The schedule to the image to time: a name, or levels such as '80>2.4>0.002' (default: one-step; "
    "nothing with --inversion alone).",
)
@click.option(
    "--inversion",
    metavar="SCHEDULE",
    help="The schedule from the image to noise to time: a name, or levels such as '+0.07 0.07>15>80'. With "
    "--schedule, both are timed as one program.",
)
@click.option(
    "--batch",
    "batches",
    default="1,8",
    show_default=True,
    metavar="LIST",
    help="Batch sizes: images per network call.",
)
@click.option(
    "--backend",
    default="all",
    show_default=True,
    metavar="NAME",
    type=click.Choice(["all", *MODULES]),
    help=f"The backend to measure: all for those that auto may select, or one of {', '.join(MODULES)}.",
)
@threads_option
@device_option
@precisions_option("all", "Precisions to measure: a list such as fp32,int8, or all in the bundle.")
@click.option(
    "--vs",
    type=click.Choice(["torch"]),
    help="Measure the network in torch as well: eager, fp32, the same weights.",
)
@click.option(
    "--seconds",
    metavar="S",
    default=3.0,
    show_default=True,
    type=click.FloatRange(0, min_open=True),
    help="Seconds to measure each variant at each batch size.",
)
@json_option
def bench(
    bundle: Path,
    schedule: str | None,
    inversion: str | None,
    batches: str,
    backend: str,
    threads: int | None,
    device: str | None,
    precisions: str,
    vs: str | None,
    seconds: float,
    as_json: bool,
) -> None:
    """Measure whole schedules of BUNDLE in every precision on every backend, and compare them.

    The variants run in turns, so the load of the machine affects all of them alike. Differences that are
    within the noise are reported as such.

    "first s" and "peak MB" are the time to the first image and the peak memory of new processes, the median
    of three, with all files in the page cache. PyTorch loads its weights from a checkpoint there. GFLOP/s
    needs the onnx package, which counts the operations. "of matmul" is the share of the speed of the fastest
    matrix product in the same precision, measured in the same turns in every library that can run here.
    """
    opened, sizes = open_bundle(bundle), parse_batches(batches)
    program, placement = timed(opened, schedule, inversion), Placement(threads, device, sizes[-1])
    check_number(sizes[-1], opened.manifest.model.sample_shape, "images of a batch")
    names = tuple(opened.precisions) if precisions == "all" else parse_precisions(precisions)
    # before the measurement, which would change the load average
    surroundings = {**environment(), "threads": placement.cpu_threads}
    flop = flop_per_call(opened.graphs(opened.precisions[0])["forward"])
    backends = [backend]
    if backend == "all":
        backends = [name for name in playing() if info(name).automatic and not wrong_device(name, placement)]
    with variants(opened, backends, names, vs, placement) as (runnable, not_run):
        compared = [] if flop is None else [(variant.name, variant.precision) for variant in runnable]
        products, absent = open_products(compared, placement)
        measured = [_measure(runnable, products, program, size, seconds, flop) for size in sizes]
    not_run += [failure for batch in measured for failure in batch.not_run]
    if not any(batch.results for batch in measured):
        raise BackendError(
            f"{bundle}: no variant can run on this machine ({'; '.join(not_run_lines(not_run))}); "
            f"bcm-edge doctor {bundle} shows how to fix it"
        )
    absent = [*absent, *(problem for batch in measured for problem in batch.absent)]
    if flop is None:
        absent.append(f"GFLOP/s: counting operations needs onnx; {install_line('export')}")
    _report(_Run(bundle, opened, program, flop, surroundings, measured, absent, not_run), as_json)


def parse_batches(text: str) -> list[int]:
    """Return the batch sizes in a list such as "1,8", in ascending order. Raises click.BadParameter."""
    try:
        sizes = sorted({int(word) for word in text.split(",")})
    except ValueError:
        raise click.BadParameter(
            f"expected a list of numbers such as 1,8, got {text!r}", param_hint="--batch"
        ) from None
    if sizes[0] < 1:
        raise click.BadParameter(f"a batch has at least 1 image, got {sizes[0]}", param_hint="--batch")
    return sizes


@dataclass(frozen=True)
class _Measured:
    """The measurements at one batch size."""

    size: int
    results: list[Result]
    not_run: list[NotRun]
    # Figures that could not be measured, and why.
    absent: list[str]
    # Precision → the fastest matrix product in the same turns.
    peaks: dict[str, Peak]
    # The share of the processors that other processes took during the turns.
    # None if the system does not report it.
    others: float | None

    def peaks_json(self) -> dict[str, object]:
        """Return the matrix products for --json."""
        return {precision: vars(peak) for precision, peak in self.peaks.items()}


@dataclass(frozen=True)
class _Ready:
    """A variant that is open and has run once."""

    variant: Variant
    backend: Backend
    # Runs the schedule once.
    run: benchmark.Play


def _measure(
    runnable: Sequence[Variant],
    products: Sequence[Product],
    schedule: Schedule,
    size: int,
    seconds: float,
    flop: int | None,
) -> _Measured:
    """Measure all variants at one batch size. flop: operations of one network call with one image."""
    ready, not_run = _open(runnable, schedule, size)
    if not ready:
        return _Measured(size, [], not_run, [], {}, None)
    measured = f"{counted(len(ready), 'variant')} and {counted(len(products), 'matrix product')}"
    turn = f"{measured} in turns, {seconds:g} s each"
    progress(f"batch {size}: {turn}, then {starts.STARTS} new processes of each variant")
    load = OtherProcesses()
    runs = [*(one.run for one in ready), *(product.run for product in products)]
    turns = benchmark.interleave(runs, seconds)
    fastest = peaks(products, turns[len(ready) :])
    others = load.share()
    for one in ready:
        one.backend.close()
    first_starts = starts.first_images([one.variant.start(schedule, size) for one in ready])
    results, absent = [], []
    for one, own_turns, start in zip(ready, turns[: len(ready)], first_starts, strict=True):
        peak = peak_for(one.variant.name, one.variant.precision, fastest)
        gflops = None if peak is None else peak.gflops
        summary = benchmark.summarise(one.backend, size, schedule.nfe, own_turns, start, flop, gflops)
        summary, problem = without_share_above_peak(summary, peak)
        results.append(summary)
        if start.problem:
            absent.append(f"first image of {summary} at batch {size}: {start.problem}")
        if problem:
            absent.append(problem)
    return _Measured(size, results, not_run, absent, fastest, others)


def _open(runnable: Sequence[Variant], schedule: Schedule, size: int) -> tuple[list[_Ready], list[NotRun]]:
    """Open the variants and run each of them once, which opens sessions and compiles networks."""
    ready, not_run = [], []
    for variant in runnable:
        try:
            backend = variant.open()
            run = benchmark.player(backend, schedule, size)
            run()
        except (BackendError, NonFiniteError) as error:
            not_run.append(NotRun(variant.name, variant.precision, size, str(error)))
        else:
            ready.append(_Ready(variant, backend, run))
    return ready, not_run


@dataclass(frozen=True)
class _Run:
    """All measurements of one call of the command."""

    # The path as it was typed.
    path: Path
    bundle: Bundle
    schedule: Schedule
    # Operations of one network call with one image; None if they cannot be counted.
    flop: int | None
    # The environment before the measurement.
    surroundings: dict[str, Any]
    # One per batch size.
    measured: Sequence[_Measured]
    # Figures that could not be measured, and why.
    absent: list[str]
    not_run: list[NotRun]


def _report(run: _Run, as_json: bool) -> None:
    """Print the table on stderr, and the verdicts or the JSON object on stdout."""
    results = [row for batch in run.measured for row in batch.results]
    notes = [*_peak_lines(run.measured), *(f"absent: {reason}" for reason in run.absent)]
    progress(report(results, run.not_run, notes, run.surroundings))
    verdicts = {
        str(batch.size): benchmark.verdicts(batch.results, batch.others)
        for batch in run.measured
        if batch.results
    }
    values = {
        "bundle": str(run.path),
        "model": run.bundle.manifest.model.name,
        "schedule": str(run.schedule),
        "nfe": run.schedule.nfe,
        "flop_per_call": run.flop,
        "results": [vars(row) for row in results],
        "verdicts": verdicts,
        "absent": run.absent,
        "peaks": {str(batch.size): batch.peaks_json() for batch in run.measured},
        "environment": run.surroundings,
        "taken_by_others": {str(batch.size): batch.others for batch in run.measured},
        "not_run": [vars(failure) for failure in run.not_run],
    }
    lines = [f"batch {size}: {sentence}" for size, sentences in verdicts.items() for sentence in sentences]
    result(as_json, values, "\n".join(lines))


def _peak_lines(measured: Sequence[_Measured]) -> list[str]:
    """Return a line per batch size with the matrix products that "of matmul" refers to."""
    lines = []
    for batch in measured:
        if batch.peaks:
            fastest = "; ".join(f"for {precision} {peak}" for precision, peak in batch.peaks.items())
            lines.append(f"fastest matrix product ({MATRIX} × {MATRIX}) at batch {batch.size}: {fastest}")
    return lines
