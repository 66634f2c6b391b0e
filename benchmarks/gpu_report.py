"""The figures of benchmarks/gpu.py as Markdown: environment, times, targets, and what was not run."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import networks  # noqa: F401 (which makes this checkout importable as bcm_edge)
from gpu_results import COMPILED, EAGER, TENSORRT, Measured, Results, Row, precision_of

BATCHES = (1, 16, 256)
CHAINED, CHAIN = 4, 1.03  # target: most that a chain of 4 moves may take, in sums of its engine times
FASTER = {1: 1.5, 256: 1.1}  # targets: batch size → how many times as fast as torch.compile TensorRT is
SHARE = {256: 0.5}  # target: batch size → share of the fp16 matrix product that TensorRT reaches


def report(network: str, measured: Sequence[Measured], notes: Sequence[str] = ()) -> list[str]:
    """Return the report as lines of Markdown. notes: further lines about work that was not run."""
    figures = [*table(measured), "", *preparations(measured)]
    if not any(m.rows for m in measured):
        figures = ["Nothing was measured."]
    goals = ["not judged: the targets are set for imagenet64"]
    if network == "imagenet64":
        goals = targets(measured)
    lines = [*environments(network, measured), "", *figures, "", "Targets:", "", *_items(goals)]
    return [*lines, "", "Not run:", "", *_items([*notes, *not_run(measured)])]


def _items(lines: Sequence[str]) -> list[str]:
    return [f"- {line}" for line in lines]


def environments(network: str, measured: Sequence[Measured]) -> list[str]:
    """A table of the GPU and the libraries, and of what was measured once per batch size."""
    rows = {"network": f"{network}, random weights" if network == "imagenet64" else network}
    different: list[dict[str, Any]] = []
    for m in measured:
        if m.environment not in different:
            different.append(m.environment)
    for environment in different:
        sizes = [m.batch for m in measured if m.environment == environment]
        where = "" if len(sizes) == len(measured) else f", {_batches(sizes)}"
        rows[f"GPU{where}"] = environment["gpu"]
        versions = (f"{name} {value}" for name, value in environment["versions"].items())
        rows[f"versions{where}"] = ", ".join(versions)
    for m in measured:
        if m.matmul_tflops is not None:
            rows[f"fp16 matrix product, batch {m.batch}"] = f"{m.matmul_tflops:.3g} TFLOP/s"
        if m.noise_ms:
            times = ", ".join(f"{schedule} {ms:.1f} ms" for schedule, ms in m.noise_ms.items())
            rows[f"noise on the host, not in the times below, batch {m.batch}"] = times
        if m.chain:
            engines = " + ".join(f"{ms:.3f}" for ms in m.chain.engines_ms)
            whole = f"{m.chain.wall_ms:.3f} ms, without copies {m.chain.device_ms:.3f} ms"
            rows[f"{TENSORRT}, {CHAINED} moves, batch {m.batch}"] = f"{whole}; engines {engines} ms"
    return ["| environment | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())]


def table(measured: Sequence[Measured]) -> list[str]:
    """Return the table of all times, with a legend if it needs one."""
    from bcm_edge.runtime.checks.benchmark import differ

    reference = _reference(measured)
    columns = ["batch", "schedule", "variant", "p50 ms", "p90", "p99", "images/s"]
    columns += [f"× {reference.removesuffix(' fp16')}", "TFLOP/s", "of matmul", "rel. L2"]
    lines = [f"| {' | '.join(columns)} |", f"|{'---|' * 3}{'---:|' * (len(columns) - 3)}"]
    for m in measured:
        references = m.rows_of(reference)
        for r in sorted(m.rows, key=_order(m)):
            other = references.get(r.schedule)
            if other is None:
                ratio = "–"
            elif r is other or differ(r, other):
                ratio = f"{other.p50_ms / r.p50_ms:.2f}"
            else:
                ratio = "="
            cells = [str(m.batch), r.schedule, r.variant if r.in_turn else f"{r.variant} \\*"]
            cells += [f"{r.p50_ms:.2f}", f"{r.p90_ms:.2f}", f"{r.p99_ms:.2f}", f"{r.images_per_s:.1f}", ratio]
            cells += [f"{r.tflops:.3g}", f"{r.of_matmul:.0%}", f"{r.relative_l2:.1e}"]
            lines.append(f"| {' | '.join(cells)} |")
    legend = []
    if any(line.count(" | = | ") for line in lines):
        legend.append("=: no difference beyond noise.")
    if not all(r.in_turn for m in measured for r in m.rows):
        legend.append("\\*: in turn with the matrix product only, not with the other variants.")
    return [*lines, "", " ".join(legend)] if legend else lines


def _reference(measured: Sequence[Measured]) -> str:
    """Return the variant with which the others are compared: torch.compile, or TensorRT without it."""
    return COMPILED if any(COMPILED in m.variants for m in measured) else TENSORRT


def _order(m: Measured) -> Callable[[Row], tuple[int, int]]:
    """Return the rows by schedule, in the order of measurement, and within a schedule by variant."""
    schedules = list(dict.fromkeys(row.schedule for row in m.rows))
    return lambda row: (schedules.index(row.schedule), m.variants.index(row.variant))


def preparations(measured: Sequence[Measured]) -> list[str]:
    """A table of how each variant ran and how long it took until it had run all schedules once."""
    lines = ["| batch | variant | ran on | ready after s |", "|---|---|---|---:|"]
    for m in measured:
        lines += [f"| {m.batch} | {name} | {how} | {m.ready_s[name]:.0f} |" for name, how in m.played.items()]
    return lines


def targets(measured: Sequence[Measured]) -> list[str]:
    """Return one line per target: met (by all measured schedules), missed or not run."""
    from bcm_edge.runtime.accuracy import BOUNDS

    at = {m.batch: m for m in measured}
    chains = {f"batch {m.batch}": m.chain.ratio for m in measured if m.chain}
    goal = f"a chain of {CHAINED} moves takes at most {CHAIN} times the sum of its engine times"
    why = _why(measured, None, TENSORRT) or f"no schedule of {CHAINED} moves was measured"
    lines = [_verdict(goal, chains, lambda ratio: ratio <= CHAIN, "{:.3f}", why)]
    for batch, least in FASTER.items():
        ratios = _ratios(at[batch]) if batch in at else {}
        goal = f"{TENSORRT} is at least {least} times as fast as torch.compile at batch {batch}"
        why = _why(measured, batch, TENSORRT, COMPILED)
        lines.append(_verdict(goal, ratios, lambda ratio, least=least: ratio >= least, "{:.2f}", why))
    for batch, least in SHARE.items():
        rows = at[batch].rows_of(TENSORRT) if batch in at else {}
        shares = {schedule: row.of_matmul for schedule, row in rows.items()}
        goal = f"{TENSORRT} reaches at least {least:.0%} of the fp16 matrix product at batch {batch}"
        why = _why(measured, batch, TENSORRT)
        lines.append(_verdict(goal, shares, lambda share, least=least: share >= least, "{:.0%}", why))
    bound, worst = BOUNDS["fp16"], _worst(measured)
    goal, why = f"the last state is within {bound:.0e} of torch in float32", _why(measured, None, TENSORRT)
    return [*lines, _verdict(goal, worst, lambda error: error <= bound, "{:.1e}", why)]


def _ratios(m: Measured) -> dict[str, float]:
    """Return schedule → the time of torch.compile divided by the time of TensorRT."""
    ratios, compiled = {}, m.rows_of(COMPILED)
    for schedule, row in m.rows_of(TENSORRT).items():
        if schedule in compiled:
            other = compiled[schedule]
            name = schedule if row.in_turn and other.in_turn else f"{schedule}, not in turn,"
            ratios[name] = other.p50_ms / row.p50_ms
    return ratios


def _worst(measured: Sequence[Measured]) -> dict[str, float]:
    """Return variant → its largest relative L2 distance, for the variants in fp16 other than torch."""
    worst: dict[str, float] = {}
    variants = dict.fromkeys(name for m in measured for name in m.variants)
    for variant in variants:
        if variant in (EAGER, COMPILED) or precision_of(variant) != "fp16":
            continue
        errors = [row.relative_l2 for m in measured for row in m.rows_of(variant).values()]
        if errors:
            worst[variant] = max(errors, key=lambda error: (error != error, error))  # NaN is the largest
    return worst


def _verdict(
    goal: str,
    values: Mapping[str, float],
    holds: Callable[[float], bool],
    form: str,
    why: str,
) -> str:
    if not values:
        return f"not run: {goal}: {why}"
    numbers = ", ".join(f"{name} {form.format(value)}" for name, value in values.items())
    return f"{'met' if all(map(holds, values.values())) else 'missed'}: {goal}: {numbers}"


def _why(measured: Sequence[Measured], batch: int | None, *variants: str) -> str:
    """The reason why there is no figure of these variants at a batch size; None means at any batch size."""
    among = [m for m in measured if batch in (None, m.batch)]
    reasons = []
    for name in variants:
        for m in among:
            if name not in m.variants:
                reasons.append(f"{name} was not asked for")
            works = [work for work in m.not_run if f"{work}, ".startswith(f"{name}, ")]
            reasons += [f"{work}: {m.not_run[work]}" for work in works]
    return "; ".join(dict.fromkeys(reasons)) if among else f"batch {batch} was not measured"


def not_run(measured: Sequence[Measured]) -> list[str]:
    """Return one line for each reason: the work that was not run because of it."""
    sizes: dict[tuple[str, str], list[int]] = {}
    for m in measured:
        for work, reason in m.not_run.items():
            sizes.setdefault((work, reason), []).append(m.batch)
    works: dict[tuple[str, str], list[str]] = {}
    for (work, reason), batches in sizes.items():
        works.setdefault((_batches(batches), reason), []).append(work)
    everything = {name for m in measured for name in m.variants}
    lines = [
        f"{'every variant' if everything <= set(each) else ', '.join(each)} at {batches}: {reason}"
        for (batches, reason), each in works.items()
    ]
    if absent := [batch for batch in BATCHES if batch not in {m.batch for m in measured}]:
        lines.append(f"{_batches(absent)}: not asked for")
    return [*lines, "TensorRT in fp32, bf16 and int8: `make test-gpu` builds and checks them on the digits"]


def _batches(sizes: Sequence[int]) -> str:
    return f"batch {', '.join(map(str, sizes))}"


def main() -> None:
    """Print the Markdown of a file of results: `python benchmarks/gpu_report.py results.json`."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("results", type=Path, help="what benchmarks/gpu.py -o wrote")
    file = parser.parse_args().results
    try:
        results = Results.read(file)
    except OSError as error:
        parser.error(f"{file} cannot be read ({error.strerror})")
    except ValueError as error:
        parser.error(str(error))
    print("\n".join(report(results.network, list(results.batches.values()))))


if __name__ == "__main__":
    main()
