"""Measure how fast the schedules of a bundle run on this machine, and compare the results.

A variant is a backend with a precision. All variants of one batch size are open at the same time and take
turns, so other load on the machine affects all of them alike. Matrix products (products.py) take their turns
with them and show what the processor can do at that time. Batch sizes are measured one after the other,
because a large network does not fit into memory once per size.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ..backends.base import Backend
from ..batches import Batch
from ..chain import play
from ..noise import START_DRAW, standard_normal
from ..schedule import Schedule
from .starts import Start

Play = Callable[[], object]
Turns = list[list[float]]  # the seconds of every run that counts, turn by turn

TURN = 0.1  # seconds that a variant runs before the turn of the next one
ROUNDS = 5  # turns of each variant at least; fewer show no spread
CLAIM = 1.05  # a variant is called faster from this factor on; repeated medians differ by up to 4 %
QUIET = 0.1  # if other processes use a larger share of the processors, the verdict has to mention it


class Described(Protocol):
    """The description of the measured backend in a result. Every backend has these properties."""

    @property
    def name(self) -> str:
        """The name of the backend."""
        ...

    @property
    def precision(self) -> str:
        """The precision of its graphs."""
        ...

    @property
    def device(self) -> str:
        """The device as text, for example "CPU, 2 threads"."""
        ...


class Timed(Protocol):
    """Measured times in ms. A Result has these properties."""

    @property
    def p50_ms(self) -> float:
        """The median of all runs."""
        ...

    @property
    def low_ms(self) -> float:
        """The first quartile of the medians of the turns."""
        ...

    @property
    def high_ms(self) -> float:
        """The third quartile of the medians of the turns."""
        ...


@dataclass(frozen=True)
class Result:
    """The measurements of one variant. All times are of a whole schedule, played on `batch` images."""

    backend: str
    precision: str
    # Images that are played together.
    batch: int
    # For people, for example "CPU, 2 threads".
    device: str
    # The number of runs that count.
    runs: int
    # First and third quartile of the medians of the turns. Between them lies the noise of the measurement.
    low_ms: float
    high_ms: float
    # Percentiles of all runs.
    p50_ms: float
    p90_ms: float
    p99_ms: float
    images_per_s: float
    # Network evaluations per second, counted for each image.
    nfe_per_s: float
    # Time from the start of a process to its first images, and the peak memory of that process.
    # NaN if it failed.
    first_image_s: float
    peak_mb: float
    # Convolutions and matrix products, in 10⁹ operations per second, 8-bit operations included.
    # None if they were not counted.
    gflops: float | None
    # gflops as a share of what a matrix product of this precision reached in the same turns.
    # None if there is no such product.
    of_matmul: float | None

    def __str__(self) -> str:
        return f"{self.precision} on {self.backend}"


def player(backend: Backend, schedule: Schedule, batch: int) -> Play:
    """Return the function that is timed: it plays a schedule on `batch` images, and also draws their noise.

    The seeds and the labels are 0, 1, ….
    """
    seeds = list(range(batch))
    labels = None if backend.num_classes is None else np.arange(batch) % backend.num_classes
    image = np.tanh(standard_normal(seeds, backend.sample_shape, START_DRAW)) if schedule.from_image else None
    return lambda: play(schedule, backend, Batch(seeds, labels), image)


def interleave(players: Sequence[Play], seconds: float) -> list[Turns]:
    """Run all players in turn, at least ROUNDS times, for `seconds` each on average. Returns their times."""
    turns: list[Turns] = [[] for _ in players]
    end = time.perf_counter() + seconds * len(players)
    rounds = 0
    while rounds < ROUNDS or time.perf_counter() < end:
        for own_turns, run in zip(turns, players, strict=True):
            own_turns.append(_turn(run))
        rounds += 1
    return turns


def _turn(run: Play) -> list[float]:
    """Run for TURN seconds, and return the seconds of every run that counts.

    The first of several runs does not count: it fills the caches, while threads of the previous library may
    still be spinning.
    """
    times: list[float] = []
    end = time.perf_counter() + TURN
    while not times or time.perf_counter() < end:
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
    """Return the result of a variant.

    batch: images that were played together.
    nfe: network evaluations of the schedule.
    turns: the times of its runs.
    start: its first images in a process of its own.
    flop: floating-point operations of one network call on one image, or None if they are unknown.
    matmul_gflops: what a matrix product reached in the same turns, or None if there is none to compare with.
    """
    times = np.concatenate(turns)
    p50, p90, p99 = (float(value) for value in 1e3 * np.percentile(times, [50, 90, 99]))
    medians = [np.median(turn) for turn in turns]
    low, high = (float(value) for value in 1e3 * np.percentile(medians, [25, 75]))
    images_per_s = batch / p50 * 1e3
    gflops = None if flop is None else flop * nfe * images_per_s / 1e9
    return Result(
        backend=backend.name,
        precision=backend.precision,
        batch=batch,
        device=backend.device,
        runs=len(times),
        low_ms=low,
        high_ms=high,
        p50_ms=p50,
        p90_ms=p90,
        p99_ms=p99,
        images_per_s=images_per_s,
        nfe_per_s=images_per_s * nfe,
        first_image_s=start.seconds,
        peak_mb=start.peak_mb,
        gflops=gflops,
        of_matmul=None if gflops is None or matmul_gflops is None else gflops / matmul_gflops,
    )


def differ(a: Timed, b: Timed) -> bool:
    """Return whether the difference between two variants is larger than the noise of the measurement.

    Their quartile ranges must not overlap, and their medians must differ by the factor CLAIM at least.
    """
    fast, slow = sorted((a, b), key=lambda result: result.p50_ms)
    return fast.high_ms < slow.low_ms and slow.p50_ms >= CLAIM * fast.p50_ms


def verdicts(results: Sequence[Result], others: float | None = None) -> list[str]:
    """Return what the results of one batch size mean, as sentences.

    Each precision is compared with the most exact precision of its backend. The most exact precision of each
    backend is compared with that of the first backend, and the first backend with PyTorch.

    others: the share of the processors that other processes used meanwhile. It is not part of the noise,
    because it slows down every run, most of all those that wait for many threads.
    """
    first = results[0]
    sentences = []
    for result in results[1:]:
        most_exact = next(other for other in results if other.backend == result.backend)
        if result.backend == "torch":
            sentences.append(_comparison(first, result))
        else:
            sentences.append(_comparison(result, first if most_exact is result else most_exact))
    best = min(results, key=lambda result: result.p50_ms)
    equals = [str(result) for result in results if result is not best and not differ(result, best)]
    no_difference = f"; no difference beyond noise from {', '.join(equals)}" if equals else ""
    sentences.append(f"fastest: {best}{no_difference}")
    if others is not None and others > QUIET:
        sentences.append(
            f"caution: other processes took {others:.0%} of the processors meanwhile; "
            "measure again when the machine is quiet"
        )
    return sentences


def _comparison(a: Result, b: Result) -> str:
    if not differ(a, b):
        return f"{a} and {b}: no difference beyond noise"
    if a.p50_ms < b.p50_ms:
        return f"{a} is {b.p50_ms / a.p50_ms:.1f}× as fast as {b}"
    advice = b.precision if a.backend == b.backend else b.backend
    return f"{a} is slower here than {b} ({a.p50_ms / b.p50_ms:.1f}×): use {advice}"
