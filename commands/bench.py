"""bcm-edge bench: how fast a bundle plays here, in every precision on every backend, and what to use."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from ..errors import BackendError, NonFiniteError
from ..runtime.arguments import check_number
from ..runtime.backends import MODULES, backend_module, open_backend, playing
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
from ..runtime.machine.resources import threads
from ..runtime.machine.temporary import temporary_folder
from ..runtime.schedule import Schedule
from ..runtime.storage.bundle import Bundle, open_bundle
from .console import bundle_argument, json_option, parse_precisions, progress, require_extra, result, table

TORCH_FIRST_IMAGE = """
import json, torch
from bcm_edge.model.config import NetworkConfig
from bcm_edge.model.player import TorchBackend
from bcm_edge.model.preconditioning import ConsistencyModel
checkpoint, config, threads, schedule, batch = arguments
torch.set_num_threads(int(threads))
model = ConsistencyModel(NetworkConfig.from_json(json.loads(config)))
model.network.load_state_dict(torch.load(checkpoint, map_location="cpu", weights_only=True))
player(TorchBackend(model), parse_schedule(schedule), int(batch))()
print(peak_mb(), flush=True)
"""


@dataclass(frozen=True)
class Candidate:
    """A variant to measure. start: the command of a process that makes first images, from the schedule and the batch size."""

    name: str
    precision: str
    open: Callable[[], Backend]
    start: Callable[[Schedule, int], list[str]]


@dataclass(frozen=True)
class NotRun:
    """A variant that cannot run here, and why; batch: None means at no batch size."""

    backend: str
    precision: str
    batch: int | None
    reason: str


@click.command(
    short_help="How fast a bundle plays here.",
    epilog="Example:  bcm-edge bench digits.bundle --schedule mixture-4 --batch 1,8",
)
@bundle_argument
@click.option(
    "--schedule",
    default="one-step",
    show_default=True,
    help="A schedule's name or text, as in '80>2.4>0.002'.",
)
@click.option(
    "--batch", "batches", default="1,8", show_default=True, metavar="LIST", help="Images per network call."
)
@click.option(
    "--backend",
    default="all",
    show_default=True,
    type=click.Choice(["all", *MODULES]),
    help="Where to play; all: whatever computes.",
)
@click.option(
    "--precision",
    "precisions",
    default="all",
    show_default=True,
    metavar="LIST",
    help="Of fp32,fp16,bf16,int8; all: as held.",
)
@click.option(
    "--vs",
    type=click.Choice(["torch"]),
    help="Measure the torch network beside them: eager, fp32, the same weights.",
)
@click.option(
    "--seconds",
    default=3.0,
    show_default=True,
    type=click.FloatRange(0, min_open=True),
    help="Per variant and batch size.",
)
@json_option
def bench(
    bundle: Path,
    schedule: str,
    batches: str,
    backend: str,
    precisions: str,
    vs: str | None,
    seconds: float,
    as_json: bool,
) -> None:
    """Time whole schedules in every precision on every backend, in turn, and say in words what is faster and what is noise.

    First image and peak memory are those of fresh processes, median of three, with everything already in the page cache. PyTorch
    loads its weights as a checkpoint there. GFLOP/s needs the onnx package, which counts operations from the graph's shapes. Matrix
    products of each precision take turns with the variants, in every library that can play here: "of matmul" is the share of the
    fastest of them.
    """
    opened = open_bundle(bundle)
    program, sizes = opened.schedule(schedule), parse_batches(batches)
    check_number(sizes[-1], opened.manifest.model.sample_shape, "images of a batch")
    wanted = tuple(opened.precisions) if precisions == "all" else parse_precisions(precisions)
    surroundings = environment()  # before the measuring, whose own load would stand in it
    flop = flop_per_call(opened.graphs(opened.precisions[0])["forward"])
    with _candidates(opened, playing() if backend == "all" else (backend,), wanted, vs) as (
        candidates,
        not_run,
    ):
        compared = [] if flop is None else [(candidate.name, candidate.precision) for candidate in candidates]
        products, failed = open_products(compared)
        measured = [_measure(candidates, products, program, size, seconds, flop) for size in sizes]
    results = [r for each in measured for r in each.results]
    not_run += [n for each in measured for n in each.not_run]
    if not results:
        raise BackendError(
            f"nothing of this can run here; {'; '.join(f'{n.precision} on {n.backend}: {n.reason}' for n in not_run)}"
        )
    said = {
        str(each.batch): benchmark.verdicts(each.results, each.others) for each in measured if each.results
    }
    absent = [*failed, *(problem for each in measured for problem in each.absent)]
    if flop is None:
        absent.append(f"GFLOP/s: counting operations needs onnx; {install_line('export')}")
    notes = [*_peak_lines(measured), *(f"absent: {reason}" for reason in absent)]
    progress(_report(results, not_run, notes, surroundings))
    values = {
        "bundle": str(bundle),
        "model": opened.manifest.model.name,
        "schedule": str(program),
        "nfe": program.nfe,
    }
    values |= {
        "flop_per_call": flop,
        "results": [vars(r) for r in results],
        "verdicts": said,
        "absent": absent,
    }
    reached = {str(each.batch): {name: vars(peak) for name, peak in each.peaks.items()} for each in measured}
    values |= {"peaks": reached, "environment": surroundings}
    values |= {"taken_by_others": {str(each.batch): each.others for each in measured}}
    values |= {"not_run": [vars(n) for n in not_run]}
    result(
        as_json,
        values,
        "\n".join(f"batch {size}: {sentence}" for size, sentences in said.items() for sentence in sentences),
    )


def parse_batches(text: str) -> list[int]:
    """Batch sizes from a list such as 1,8, ascending."""
    try:
        sizes = sorted({int(word) for word in text.split(",")})
    except ValueError:
        raise click.BadParameter(
            f"{text!r} is no list of numbers such as 1,8", param_hint="--batch"
        ) from None
    if sizes[0] < 1:
        raise click.BadParameter(f"a batch has at least 1 image, not {sizes[0]}", param_hint="--batch")
    return sizes


@contextmanager
def _candidates(
    bundle: Bundle, backends: Sequence[str], precisions: Sequence[str], vs: str | None
) -> Iterator[tuple[list[Candidate], list[NotRun]]]:
    """What is to be measured, backend by backend, the most exact first, and what cannot run here. Raises BundleError."""
    candidates, not_run = [], []
    for name in backends:
        for precision in precisions:
            bundle.graphs(precision)
            if reason := backend_module(name).unavailable(precision):
                not_run.append(NotRun(name, precision, None, reason))
            else:
                candidates.append(_of_bundle(bundle, name, precision))
    if vs is None:
        yield candidates, not_run
        return
    require_extra("export")
    with temporary_folder() as folder:
        yield [*candidates, _of_torch(bundle, folder)], not_run


def _of_bundle(bundle: Bundle, name: str, precision: str) -> Candidate:
    def start(schedule: Schedule, batch: int) -> list[str]:
        return starts.start_command(starts.FIRST_IMAGE, bundle.path, name, precision, schedule, batch)

    return Candidate(name, precision, lambda: open_backend(name, bundle, precision), start)


def _of_torch(bundle: Bundle, folder: Path) -> Candidate:
    """The bundle's own weights in torch. For its first images they are saved as a checkpoint, as whoever uses torch would have them."""
    import torch

    from ..export.restore import restored_model
    from ..model.player import TorchBackend

    torch.set_num_threads(threads())
    model = restored_model(bundle)
    checkpoint = folder / "checkpoint.pt"
    torch.save(model.network.state_dict(), checkpoint)

    def start(schedule: Schedule, batch: int) -> list[str]:
        config = json.dumps(model.config.to_json())
        return starts.start_command(TORCH_FIRST_IMAGE, checkpoint, config, threads(), schedule, batch)

    return Candidate("torch", "fp32", lambda: TorchBackend(model), start)


@dataclass(frozen=True)
class _Measured:
    """One batch size. peaks: precision → the fastest matrix product in the same turns. absent: figures missing, and why.

    others: the share of the processors that other processes took while the turns were played; None where the system does not tell.
    """

    batch: int
    results: list[Result]
    not_run: list[NotRun]
    absent: list[str]
    peaks: dict[str, Peak]
    others: float | None


def _measure(
    candidates: Sequence[Candidate],
    products: Sequence[Product],
    schedule: Schedule,
    batch: int,
    seconds: float,
    flop: int | None,
) -> _Measured:
    ready, players, not_run = [], [], []
    for candidate in candidates:
        try:
            backend = candidate.open()
            run = benchmark.player(backend, schedule, batch)
            run()  # sessions open and networks compile at the first move
        except (BackendError, NonFiniteError) as error:
            not_run.append(NotRun(candidate.name, candidate.precision, batch, str(error)))
            continue
        ready.append((candidate, backend))
        players.append(run)
    if not ready:
        return _Measured(batch, [], not_run, [], {}, None)
    turn = f"{len(ready)} variants and {len(products)} matrix products in turn, {seconds:g} s each"
    progress(f"batch {batch}: {turn}, then {starts.STARTS} fresh processes of each variant")
    watch = OtherProcesses()
    turns = benchmark.interleave([*players, *(product.run for product in products)], seconds)
    fastest = peaks(products, turns[len(ready) :])
    others = watch.share()
    for _, backend in ready:
        backend.close()
    first_starts = starts.first_images([candidate.start(schedule, batch) for candidate, _ in ready])
    results, absent = [], []
    for (candidate, backend), own, start in zip(ready, turns[: len(ready)], first_starts, strict=True):
        peak = peak_for(candidate.name, candidate.precision, fastest)
        reached = None if peak is None else peak.gflops
        summary = benchmark.summarise(backend, batch, schedule.nfe, own, start, flop, reached)
        summary, problem = without_share_above_peak(summary, peak)
        results.append(summary)
        absent += [f"first image of {summary} at batch {batch}: {start.problem}"] if start.problem else []
        absent += [problem] if problem else []
    return _Measured(batch, results, not_run, absent, fastest, others)


def _peak_lines(measured: Sequence[_Measured]) -> list[str]:
    """What "of matmul" is a share of, one line per batch size."""
    return [
        f"fastest matrix product ({MATRIX} × {MATRIX}) beside batch {each.batch}: "
        + "; ".join(f"for {precision} {peak}" for precision, peak in each.peaks.items())
        for each in measured
        if each.peaks
    ]


def _report(
    results: Sequence[Result], not_run: Sequence[NotRun], notes: Sequence[str], surroundings: dict[str, Any]
) -> str:
    """The table and what stands around it, for people. notes: lines at the end."""
    columns = (
        "variant",
        "batch",
        "p50 ms",
        "p90",
        "p99",
        "images/s",
        "NFE/s",
        "first s",
        "peak MB",
        "GFLOP/s",
        "of matmul",
    )
    rows = [
        (
            *(
                r,
                r.batch,
                f"{r.p50_ms:.2f}",
                f"{r.p90_ms:.2f}",
                f"{r.p99_ms:.2f}",
                f"{r.images_per_s:.1f}",
                f"{r.nfe_per_s:.1f}",
            ),
            *(
                _number(r.first_image_s, ".2f"),
                _number(r.peak_mb, ".0f"),
                _number(r.gflops, ".1f"),
                _number(r.of_matmul, ".0%"),
            ),
        )
        for r in results
    ]
    versions = ", ".join(f"{name} {version}" for name, version in surroundings["versions"].items() if version)
    load = _number(surroundings["load_average"], ".1f")
    lines = [
        f"{surroundings['cpu']} ({', '.join(surroundings['flags'])}), {surroundings['threads']} threads, load {load}",
        versions,
    ]
    if board := surroundings.get("jetson"):
        lines.append(f"{board['board']}, power mode {board['power_mode']}")
    lines += [table(columns, rows)]
    same: dict[tuple[str, int | None, str], list[str]] = {}
    for n in not_run:
        same.setdefault((n.backend, n.batch, n.reason), []).append(n.precision)
    for (backend, batch, reason), precisions in same.items():
        lines.append(
            f"not run: {', '.join(precisions)} on {backend}{f' at batch {batch}' if batch else ''}: {reason}"
        )
    return "\n".join([*lines, *notes])


def _number(value: float | None, form: str) -> str:
    return "–" if value is None or math.isnan(value) else format(value, form)
