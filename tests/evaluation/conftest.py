"""Fixtures of the tests of evaluation: digits, the shipped model, and quick stand-ins."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from digit_images import labelled_digits

import bcm_edge
from bcm_edge import BCM
from bcm_edge.evaluation import comparison
from bcm_edge.evaluation.exhibits import Table
from bcm_edge.runtime.checks import benchmark


@pytest.fixture(scope="module")
def bcm(digits_bundle: Path) -> Iterator[BCM]:
    """The shipped model."""
    with bcm_edge.load(digits_bundle, batch=128) as opened:
        yield opened


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray]:
    """120 test digits, float32 [120, 1, 8, 8], and their labels."""
    return labelled_digits("test", 120)


@pytest.fixture(scope="module")
def stand_in() -> Iterator[None]:
    """Replace the exhibits of the tasks, which take minutes, and measure latencies for a moment."""

    def task_exhibits(
        bcm: Any, judge: Any, originals: np.ndarray, labels: np.ndarray, seed: int, report: Any
    ) -> list[Any]:
        report("holes")
        assert len(originals) == len(labels) == 20
        return [Table("Holes", ("hole", "error"), [("half", np.float64(0.25))], f"from seed {seed}")]

    module = ModuleType("bcm_edge.evaluation.tasks")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "task_exhibits", task_exhibits, raising=False)
        patch.setitem(sys.modules, module.__name__, module)
        patch.setattr(benchmark, "TURN", 0.01)
        patch.setattr(comparison, "LATENCY_SECONDS", 0.02)
        yield
