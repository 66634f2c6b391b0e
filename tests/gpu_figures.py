"""Fixed figures of a GPU benchmark that was not run, for the tests of benchmarks/gpu.py and of what it reports."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
GPU = "NVIDIA H100 80GB HBM3 (compute capability 9.0, 85.0 GB, driver for CUDA 13.0)"


def load(path: Path) -> ModuleType:
    """A file under a name of its own: there is a networks.py in benchmarks and in tests."""
    spec = importlib.util.spec_from_file_location(f"{path.parent.name}_{path.stem}", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


reports = load(BENCHMARKS / "gpu_report.py")


def row(variant: str, schedule: str, p50: float, of_matmul: float = 0.4, error: float = 1e-3, spread: float = 0.1) -> Any:
    return reports.Row(variant, schedule, 30, p50 - spread, p50 + spread, p50, p50 + 1, p50 + 2, 1e3 / p50, 300.0, of_matmul, error)


def measured(batch: int, rows: Sequence[Any], chain: Any = None, not_run: dict[str, str] | None = None) -> Any:
    names = list(dict.fromkeys(r.variant for r in rows))
    environment = {"gpu": GPU, "versions": {"torch": "2.11.0", "openvino": None}}
    ready, played = dict.fromkeys(names, 12.3), {name: f"{name} played" for name in names}
    return reports.Measured(batch, list(rows), chain, 750.0, not_run or {}, ready, {"one-step": 0.5}, played, environment)


def engine_beside_torch(batch: int, engine: float, compiled: float, of_matmul: float = 0.6) -> Any:
    rows = [
        row(reports.EAGER, "one-step", 3 * compiled),
        row(reports.TENSORRT, "one-step", engine, of_matmul),
        row(reports.COMPILED, "one-step", compiled),
    ]
    return measured(batch, rows, reports.Chain(4.1, 4.02, [1.0, 1.0, 1.0, 1.0]))
