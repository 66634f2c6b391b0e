"""The table of `bench`, and the lines around it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ..runtime.checks.benchmark import Result
from .bench_variants import NotRun
from .tables import fits, table

COLUMNS = (
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
KEYS = 2  # columns that name a row
TIMES = 7  # these and the columns of times


def report(
    results: Sequence[Result], not_run: Sequence[NotRun], notes: Sequence[str], surroundings: dict[str, Any]
) -> str:
    """Return the table with the machine above it; below it what did not run, and the notes.

    surroundings: what `runtime.machine.environment.environment` returned before the measurement.
    """
    missing = [f"not run: {line}" for line in not_run_lines(not_run)]
    return "\n".join([*_machine(surroundings), _measurements(results), *missing, *notes])


def _measurements(results: Sequence[Result]) -> str:
    """Return the table of all figures; in a terminal too narrow for it two tables, with the times first."""
    rows = [_row(measured) for measured in results]
    if fits(COLUMNS, rows):
        return table(COLUMNS, rows)
    times = table(COLUMNS[:TIMES], [row[:TIMES] for row in rows])
    others = [(*row[:KEYS], *row[TIMES:]) for row in rows]
    return f"{times}\n\n{table((*COLUMNS[:KEYS], *COLUMNS[TIMES:]), others)}"


def _row(measured: Result) -> tuple[object, ...]:
    return (
        measured,
        measured.batch,
        f"{measured.p50_ms:.2f}",
        f"{measured.p90_ms:.2f}",
        f"{measured.p99_ms:.2f}",
        f"{measured.images_per_s:.1f}",
        f"{measured.nfe_per_s:.1f}",
        _number(measured.first_image_s, ".2f"),
        _number(measured.peak_mb, ".0f"),
        _number(measured.gflops, ".1f"),
        _number(measured.of_matmul, ".0%"),
    )


def _machine(surroundings: dict[str, Any]) -> list[str]:
    instruction_sets = ", ".join(surroundings["flags"])
    load = _number(surroundings["load_average"], ".1f")
    processor = f"{surroundings['cpu']} ({instruction_sets}), {surroundings['threads']} threads, load {load}"
    versions = [f"{name} {version}" for name, version in surroundings["versions"].items() if version]
    lines = [processor, ", ".join(versions)]
    if board := surroundings.get("jetson"):
        lines.append(f"{board['board']}, power mode {board['power_mode']}")
    return lines


def not_run_lines(not_run: Sequence[NotRun]) -> list[str]:
    """Return a line for each backend, batch size and reason, with all precisions that it concerns."""
    precisions: dict[tuple[str, int | None, str], list[str]] = {}
    for variant in not_run:
        key = (variant.backend, variant.batch, variant.reason)
        precisions.setdefault(key, []).append(variant.precision)
    lines = []
    for (backend, batch, reason), names in precisions.items():
        at_batch = f" at batch {batch}" if batch else ""
        lines.append(f"{', '.join(names)} on {backend}{at_batch}: {reason}")
    return lines


def _number(value: float | None, form: str) -> str:
    return "–" if value is None or math.isnan(value) else format(value, form)
