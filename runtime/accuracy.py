"""Bounds for the distance of a result from the reference, and the measure of that distance."""

from __future__ import annotations

import numpy as np

# Precision → the largest relative L2 error of every move of a schedule.
BOUNDS = {"fp32": 1e-4, "fp16": 5e-3, "bf16": 2e-2, "int8": 6e-2, "int8-fp16": 6e-2, "fp8": 6e-2}


def relative_l2(actual: np.ndarray, expected: np.ndarray) -> float:
    """Return |actual - expected| / |expected|, or |actual| where `expected` is zero everywhere.

    The arrays have one shape, and the result is computed in their type. It is NaN if `actual` contains NaN.
    """
    norm = float(np.linalg.norm(expected))
    distance = float(np.linalg.norm(actual - expected))
    return distance / norm if norm else distance
