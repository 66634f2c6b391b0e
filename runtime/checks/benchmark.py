"""How fast a bundle's schedules play here: runs of all variants in turn, first images in processes of their own, and what to make of both.

A variant is a backend in a precision. All variants of one batch size are open at once and take turns, so that whatever else the
machine does hits all alike; products of two matrices take their turns among them and tell what the processor gives at that time.
Batch sizes follow each other, as a large network does not fit into memory once per size.
"""

from __future__ import annotations

import importlib.util
import math
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from ...errors import BundleError
from ..backends.base import Backend
from ..batches import Batch
from ..chain import play
from ..machine.processes import python_command
from ..machine.temporary import temporary_text
from ..noise import START_DRAW, standard_normal
from ..schedule import Schedule
from ..wording import first_line

Play = Callable[[], object]
Turns = list[list[float]]  # seconds of every run that counts, turn by turn

TURN = 0.1  # seconds a variant plays before the next one's turn
ROUNDS = 5  # of turns at least: fewer runs have no spread
STARTS = 3  # processes per variant of which the median counts
CLAIM = 1.05  # times as fast at least, to be called faster: medians of one thing measured twice differ by up to 4 %
QUIET = 0.1  # share of the processors that other processes may take before a verdict has to mention it

PROLOGUE = """
from bcm_edge.runtime.checks.benchmark import peak_mb, player
from bcm_edge.runtime.schedule import parse_schedule
"""
FIRST_IMAGE = """
bundle, backend, precision, schedule, batch = arguments
bcm = package.load(bundle, backend, precision=precision)
player(bcm.backend, parse_schedule(schedule), int(batch))()
print(peak_mb(), flush=True)
"""


class Described(Protocol):
    """What a result states of whatever was measured. A backend has it all."""

    @property
    def name(self) -> str: ...

    @property
    def precision(self) -> str: ...

    @property
    def device(self) -> str: ...


class Timed(Protocol):
    """Measured times in ms, as a Result has them."""

    @property
    def p50_ms(self) -> float: ...

    @property
    def low_ms(self) -> float: ...

    @property
    def high_ms(self) -> float: ...


@dataclass(frozen=True)
class Start:
    """A process from its start to its first images: seconds, and its peak resident memory in MB. NaN where it failed, and how."""

    seconds: float
    peak_mb: float
    problem: str = ""


@dataclass(frozen=True)
class Result:
    """What one variant did. Times are of whole schedules of `batch` images, in all runs that count.

    low_ms, high_ms: where the middle half of its turns' medians lies, which is the noise a verdict goes by. nfe_per_s counts the
    network evaluations of each image. first_image_s, peak_mb: of a process of its own; NaN where that failed. gflops:
    convolutions and matrix products, in 10⁹ operations per second, 8-bit ones too; None where they are not counted. of_matmul: their
    share of what a matrix product of that precision reached in the same turns; None where there is none to compare with.
    """

    backend: str
    precision: str
    batch: int
    device: str
    runs: int
    low_ms: float
    high_ms: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    images_per_s: float
    nfe_per_s: float
    first_image_s: float
    peak_mb: float
    gflops: float | None
    of_matmul: float | None

    def __str__(self) -> str:
        return f"{self.precision} on {self.backend}"


def player(backend: Backend, schedule: Schedule, batch: int) -> Play:
    """What is timed: the schedule on `batch` images from their seeds, the drawing of noise included. Labels are 0, 1, … in turn."""
    seeds = list(range(batch))
    labels = None if backend.num_classes is None else np.arange(batch) % backend.num_classes
    image = np.tanh(standard_normal(seeds, backend.sample_shape, START_DRAW)) if schedule.from_image else None
    return lambda: play(schedule, backend, Batch(seeds, labels), image)


def interleave(players: Sequence[Play], seconds: float) -> list[Turns]:
    """Turn after turn of all players, ROUNDS times at least, until each had `seconds` on average."""
    turns: list[Turns] = [[] for _ in players]
    ends, rounds = time.perf_counter() + seconds * len(players), 0
    while rounds < ROUNDS or time.perf_counter() < ends:
        for own, run in zip(turns, players, strict=True):
            own.append(_turn(run))
        rounds += 1
    return turns


def _turn(run: Play) -> list[float]:
    """Runs for TURN seconds. The first of several does not count: it brings back the caches, while threads of the last library spin out."""
    times, ends = [], time.perf_counter() + TURN
    while not times or time.perf_counter() < ends:
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    return times[1:] or times


def summarise(
    backend: Described,
    batch: int,
    nfe: int,
    turns: Turns,
    start: Start,
    flop: int | None,
    matmul_gflops: float | None,
) -> Result:
    """The result of a variant. flop: of one network call on one image; matmul_gflops: what a matrix product reached beside it."""
    times = np.concatenate(turns)
    p50, p90, p99 = (float(p) for p in 1e3 * np.percentile(times, [50, 90, 99]))
    low, high = (float(p) for p in 1e3 * np.percentile([np.median(turn) for turn in turns], [25, 75]))
    images_per_s = batch / p50 * 1e3
    gflops = None if flop is None else flop * nfe * images_per_s / 1e9
    return Result(
        backend.name,
        backend.precision,
        batch,
        backend.device,
        len(times),
        *(low, high, p50, p90, p99),
        images_per_s,
        images_per_s * nfe,
        start.seconds,
        start.peak_mb,
        gflops,
        None if gflops is None or matmul_gflops is None else gflops / matmul_gflops,
    )


def start_command(code: str, *arguments: object) -> list[str]:
    """The command of a process of its own that runs PROLOGUE and `code`; the code prints peak_mb() once its first images are there."""
    return python_command(PROLOGUE + code, *arguments)


def first_images(commands: Sequence[list[str]]) -> list[Start]:
    """Medians of STARTS processes per command, in turn. Whatever they read has been read before, so the page cache is warm."""
    rounds = [[_start(command) for command in commands] for _ in range(STARTS)]
    return [_median(starts) for starts in zip(*rounds, strict=True)]


def _start(command: list[str]) -> Start:
    started = time.perf_counter()
    with (
        temporary_text() as said,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said, text=True) as child,
    ):
        assert child.stdout
        line = child.stdout.readline()  # the images are there; what follows is the end of the process
        seconds = time.perf_counter() - started
        child.wait()
        said.seek(0)
        errors = said.read().strip().splitlines()
    if child.returncode or not line:
        return Start(
            math.nan,
            math.nan,
            f"the process ended with {child.returncode}: {errors[-1] if errors else 'no message'}",
        )
    return Start(seconds, float(line))


def _median(starts: Sequence[Start]) -> Start:
    seconds, peak = (
        float(np.median([getattr(start, name) for start in starts])) for name in ("seconds", "peak_mb")
    )
    return Start(seconds, peak, next((start.problem for start in starts if start.problem), ""))


def peak_mb() -> float:
    """Peak resident memory of this process in MB. Not getrusage where /proc tells: that begins with what the parent had resident."""
    try:
        line = next(
            line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")
        )
        return int(line.split()[1]) * 1024 / 1e6
    except (OSError, StopIteration):
        import resource

        return (
            resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            * (1 if sys.platform == "darwin" else 1024)
            / 1e6
        )


def flop_per_call(graph: Path) -> int | None:
    """Floating-point operations of one network call on one image: two for each product in Conv, Gemm and MatMul, as their shapes say.

    The rest is under a hundredth and not counted. None without the onnx package, which infers the shapes.
    """
    if importlib.util.find_spec("onnx") is None:
        return None
    import onnx

    try:
        model = onnx.load(graph, load_external_data=False)
        for value in model.graph.input:
            value.type.tensor_type.shape.dim[0].dim_value = 1
        model = onnx.shape_inference.infer_shapes(model, data_prop=True)
        shapes = {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
        for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
            shapes[value.name] = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        flop = 0
        for node in model.graph.node:
            if node.op_type in ("Conv", "Gemm", "MatMul"):
                left, right, out = (shapes[name] for name in (*node.input[:2], node.output[0]))
                flop += 2 * math.prod(out) * (math.prod(right[1:]) if node.op_type == "Conv" else left[-1])
        return flop
    except Exception as error:  # protobuf's and onnx's share no base class
        raise BundleError(f"{graph}: its shapes cannot be inferred ({first_line(error)})") from error


def differ(a: Timed, b: Timed) -> bool:
    """Whether more than noise lies between two variants: the middle halves of their turns do not overlap, and their medians are at
    least CLAIM apart."""
    fast, slow = sorted((a, b), key=lambda result: result.p50_ms)
    return fast.high_ms < slow.low_ms and slow.p50_ms >= CLAIM * fast.p50_ms


def verdicts(results: Sequence[Result], others: float | None = None) -> list[str]:
    """What the results of one batch size mean, in words. Each precision is held against the most exact of its backend, each
    backend's most exact against the first's; of PyTorch it is said how many times as fast as it the first is. others: the share
    of the processors that other processes took meanwhile. That is no noise: whoever waits for threads most suffers most, in every run."""
    first = results[0]
    said = []
    for result in results[1:]:
        exact = next(r for r in results if r.backend == result.backend)
        if result.backend == "torch":
            said.append(_comparison(first, result))
        else:
            said.append(_comparison(result, first if exact is result else exact))
    best = min(results, key=lambda result: result.p50_ms)
    equals = [str(r) for r in results if r is not best and not differ(r, best)]
    said.append(
        f"fastest: {best}" + (f"; no difference beyond noise from {', '.join(equals)}" if equals else "")
    )
    if others is not None and others > QUIET:
        said.append(
            f"caution: other processes took {others:.0%} of the processors meanwhile; measure again when the machine is quiet"
        )
    return said


def _comparison(a: Result, b: Result) -> str:
    if not differ(a, b):
        return f"{a} and {b}: no difference beyond noise"
    if a.p50_ms < b.p50_ms:
        return f"{a} is {b.p50_ms / a.p50_ms:.1f}× as fast as {b}"
    return f"{a} is slower here than {b} ({a.p50_ms / b.p50_ms:.1f}×): use {b.precision if a.backend == b.backend else b.backend}"
