"""The modules of benchmarks/gpu.py, and fixed figures to test them with."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from types import ModuleType
from typing import Any
from unittest.mock import patch

from fixture_types import ROOT

BENCHMARKS = ROOT / "benchmarks"
GPU = "NVIDIA H100 80GB HBM3 (compute capability 9.0, 85.0 GB, driver for CUDA 13.0)"
ENVIRONMENT = {"gpu": GPU, "versions": {"python": "3.12.3", "torch": "2.13.0"}}


def load(*names: str) -> list[ModuleType]:
    """Import modules of benchmarks/. tests/ also has a networks.py and a folder gpu/."""
    with patch.dict(sys.modules), patch.object(sys, "path", [str(BENCHMARKS), *sys.path]):
        for name in ("networks", "gpu"):
            sys.modules.pop(name, None)
        return [import_module(name) for name in names]


gpu, check, limits, work, measuring, reports, results, variants, players = load(
    "gpu",
    "gpu_check",
    "gpu_limits",
    "gpu_work",
    "gpu_measure",
    "gpu_report",
    "gpu_results",
    "gpu_variants",
    "networks",
)


def row(
    variant: str,
    schedule: str,
    p50: float,
    of_matmul: float = 0.4,
    error: float = 1e-3,
    spread: float = 0.1,
    in_turn: bool = True,
) -> Any:
    """Return the figures of one variant on one schedule. p50, spread: milliseconds."""
    times = p50 - spread, p50 + spread, p50, p50 + 1, p50 + 2
    return results.Row(variant, schedule, 30, *times, 1e3 / p50, 300.0, of_matmul, error, in_turn)


def measured(
    batch: int, rows: Sequence[Any], chain: Any = None, not_run: dict[str, str] | None = None
) -> Any:
    """Return the figures of one batch size."""
    names = list(dict.fromkeys(r.variant for r in rows))
    ready, played = dict.fromkeys(names, 12.3), {name: f"{name} on cuda" for name in names}
    figures = {"matmul_tflops": 750.0, "ready_s": ready, "noise_ms": {"one-step": 0.5}, "played": played}
    return results.Measured(batch, ENVIRONMENT, list(rows), chain, not_run=not_run or {}, **figures)


def engine_beside_torch(batch: int, engine: float, compiled: float, of_matmul: float = 0.6) -> Any:
    """Return the figures of one batch size: one-step on torch, TensorRT and torch.compile, and a chain.

    engine, compiled: milliseconds of TensorRT and of torch.compile.
    """
    rows = [
        row(results.EAGER, "one-step", 3 * compiled),
        row(results.TENSORRT, "one-step", engine, of_matmul),
        row(results.COMPILED, "one-step", compiled),
    ]
    return measured(batch, rows, results.Chain(4.1, 4.02, [1.0, 1.0, 1.0, 1.0]))
