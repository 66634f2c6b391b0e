"""What benchmarks/gpu.py says of its figures: the table, the targets, and what was not run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

EAGER, COMPILED, TENSORRT = "torch eager fp16", "torch.compile fp16", "TensorRT fp16"
SESSIONS = {  # variant → the provider of ONNX Runtime that plays it
    "ONNX Runtime CUDA fp16": "CUDAExecutionProvider",
    "ONNX Runtime TensorRT-RTX fp16": "NvTensorRTRTXExecutionProvider",
}
BATCHES = (1, 16, 256)
CHAINED, CHAIN = 4, 1.03  # targets: what a chain of so many moves may cost, in sums of its engine times;
FASTER = {1: 1.5, 256: 1.1}  # batch size → how many times as fast as torch.compile TensorRT is to be;
SHARE = {256: 0.5}  # batch size → the part of the fp16 matrix product that it is to reach


@dataclass(frozen=True)
class Row:
    """One variant on one schedule, in the words of runtime/benchmark.py's Result; of_matmul: of the fp16 matrix product in the same turns.
    relative_l2: of the last state against torch in float32."""

    variant: str
    schedule: str
    runs: int
    low_ms: float
    high_ms: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    images_per_s: float
    tflops: float
    of_matmul: float
    relative_l2: float


@dataclass(frozen=True)
class Chain:
    """A schedule on TensorRT, in ms: called as users do; its launch alone, without the copies; and its engines one by one."""

    wall_ms: float
    device_ms: float
    engines_ms: list[float]

    @property
    def ratio(self) -> float:
        return self.wall_ms / sum(self.engines_ms)


@dataclass(frozen=True)
class Measured:
    """One batch size. not_run: variant → reason; ready_s: variant → seconds until it had played everything once; noise_ms: schedule → what
    drawing its noise took; played: variant → how, in its own words."""

    batch: int
    rows: list[Row]
    chain: Chain | None
    matmul_tflops: float
    not_run: dict[str, str]
    ready_s: dict[str, float]
    noise_ms: dict[str, float]
    played: dict[str, str]
    environment: dict[str, Any]

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Measured:
        chain = Chain(**values["chain"]) if values["chain"] else None
        return cls(**{**values, "rows": [Row(**row) for row in values["rows"]], "chain": chain})

    def of(self, variant: str) -> dict[str, Row]:
        """Schedule → what a variant did; empty if it was not run."""
        return {row.schedule: row for row in self.rows if row.variant == variant}


def report(network: str, measured: Sequence[Measured]) -> list[str]:
    """The table, what stands around it, the targets, and what was not run."""
    lines = [f"{network} on {measured[0].environment['gpu']}", "", *table(measured), ""]
    for m in measured:
        lines += [f"batch {m.batch}: {', '.join(f'{name} {number}' for name, number in m.environment['versions'].items() if number)}"]
        lines += [f"batch {m.batch}: {name}: {how}; ready after {m.ready_s[name]:.0f} s" for name, how in m.played.items()]
        lines += [f"batch {m.batch}: fp16 matrix product {m.matmul_tflops:.0f} TFLOP/s"]
        lines += [f"batch {m.batch}: noise, in no time above: {', '.join(f'{name} {ms:.1f} ms' for name, ms in m.noise_ms.items())}"]
        if m.chain:
            engines = " + ".join(f"{ms:.3f}" for ms in m.chain.engines_ms)
            lines += [f"batch {m.batch}: chain {m.chain.wall_ms:.3f} ms, {m.chain.device_ms:.3f} without copies; engines {engines} ms"]
    if not {TENSORRT, *SESSIONS} & {name for m in measured for name in m.played}:
        lines += ["torch alone was measured: neither TensorRT nor a GPU provider of ONNX Runtime could play here"]
    goals = targets(measured) if network == "imagenet64" else ["no targets: they are set for imagenet64"]
    return [*lines, "", *goals, "", *not_run(measured)]


def table(measured: Sequence[Measured]) -> list[str]:
    """Markdown; "=" where the difference from torch.compile is within noise."""
    from bcm_edge.runtime.benchmark import differ

    columns = ("batch", "schedule", "variant", "p50 ms", "p90", "p99", "images/s", "× torch.compile", "TFLOP/s", "of matmul", "rel. L2")
    lines = [f"| {' | '.join(columns)} |", f"|{'---|' * 3}{'---:|' * (len(columns) - 3)}"]
    for m in measured:
        for r in m.rows:
            other = m.of(COMPILED).get(r.schedule)
            times = "–" if other is None else f"{other.p50_ms / r.p50_ms:.2f}" if r is other or differ(r, other) else "="
            numbers = f"{r.p50_ms:.2f}", f"{r.p90_ms:.2f}", f"{r.p99_ms:.2f}", f"{r.images_per_s:.1f}", times, f"{r.tflops:.1f}"
            cells = str(m.batch), r.schedule, r.variant, *numbers, f"{r.of_matmul:.0%}", f"{r.relative_l2:.1e}"
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def targets(measured: Sequence[Measured]) -> list[str]:
    """One line per target: met, missed or not run, with its numbers. It has to hold wherever it was measured."""
    from bcm_edge.runtime.parity import BOUNDS

    at = {m.batch: m for m in measured}
    bound = BOUNDS["fp16"]
    chains = {f"batch {m.batch}": m.chain.ratio for m in measured if m.chain}
    why = _why(measured, None, TENSORRT) or f"no schedule of {CHAINED} moves was measured"
    lines = [
        _line(f"a chain of {CHAINED} moves costs ≤ {CHAIN}× the sum of its engine times", chains, lambda r: r <= CHAIN, "{:.3f}×", why)
    ]
    for batch, least in FASTER.items():
        ours, theirs = (at[batch].of(name) if batch in at else {} for name in (TENSORRT, COMPILED))
        ratios = {schedule: theirs[schedule].p50_ms / r.p50_ms for schedule, r in ours.items() if schedule in theirs}
        goal, why = f"{TENSORRT} ≥ {least}× torch.compile at batch {batch}", _why(measured, batch, TENSORRT, COMPILED)
        lines.append(_line(goal, ratios, lambda r, least=least: r >= least, "{:.2f}×", why))
    for batch, least in SHARE.items():
        shares = {schedule: r.of_matmul for schedule, r in (at[batch].of(TENSORRT) if batch in at else {}).items()}
        goal, why = f"{TENSORRT} ≥ {least:.0%} of the fp16 matrix product at batch {batch}", _why(measured, batch, TENSORRT)
        lines.append(_line(goal, shares, lambda r, least=least: r >= least, "{:.0%}", why))
    ours = [r for m in measured for r in m.rows if r.variant in (TENSORRT, *SESSIONS)]
    worst = {name: max(r.relative_l2 for r in ours if r.variant == name) for name in dict.fromkeys(r.variant for r in ours)}
    goal = f"after all moves within {bound:.0e} of torch in float32"
    return [*lines, _line(goal, worst, lambda error: error <= bound, "{:.1e}", _why(measured, None, TENSORRT))]


def _line(goal: str, values: Mapping[str, float], holds: Callable[[float], bool], form: str, why: str) -> str:
    if not values:
        return f"not run: {goal}: {why}"
    told = ", ".join(f"{name} {form.format(value)}" for name, value in values.items())
    return f"{'met' if all(map(holds, values.values())) else 'missed'}: {goal}: {told}"


def _why(measured: Sequence[Measured], batch: int | None, *variants: str) -> str:
    """Why there is no figure of these variants at a batch size; None: at any."""
    found = [m for m in measured if batch in (None, m.batch)]
    reasons = [f"{name}: {m.not_run[name]}" for name in variants for m in found if name in m.not_run]
    return "; ".join(dict.fromkeys(reasons)) if found else f"batch {batch} was not measured"


def not_run(measured: Sequence[Measured]) -> list[str]:
    """What was not run, and why, each reason once."""
    batches: dict[tuple[str, str], list[int]] = {}
    for m in measured:
        for name, reason in m.not_run.items():
            batches.setdefault((name, reason), []).append(m.batch)
    lines = [f"not run: {name} at batch {', '.join(map(str, sizes))}: {reason}" for (name, reason), sizes in batches.items()]
    if absent := [batch for batch in BATCHES if batch not in {m.batch for m in measured}]:
        lines.append(f"not run: batch {', '.join(map(str, absent))}: not asked for, or its process failed")
    return [*lines, "not run: TensorRT in fp32, bf16 and int8: make test-gpu builds and checks them on the digits"]
