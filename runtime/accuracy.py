"""Bounds for the distance of a result from the reference, and the measure of that distance."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

# Precision → the largest relative L2 error of every move of a schedule.
BOUNDS = {"fp32": 1e-4, "fp16": 5e-3, "bf16": 2e-2, "int8": 6e-2, "int8-fp16": 6e-2, "fp8": 6e-2}
# The largest relative L2 distance between two runs of the same kernels. Some kernels add in varying order.
REPLAY_BOUND = 1e-3


def relative_l2(actual: np.ndarray, expected: np.ndarray) -> float:
    """Return |actual - expected| / |expected|, or |actual| where `expected` is zero everywhere.

    The arrays have one shape, and the result is computed in their type. It is NaN if `actual` contains NaN.
    """
    norm = float(np.linalg.norm(expected))
    distance = float(np.linalg.norm(actual - expected))
    return distance / norm if norm else distance


def replay_distance(images: Iterable[np.ndarray], expected: Iterable[np.ndarray]) -> float:
    """Return the largest relative L2 distance of images from those of the same kernels.

    It is NaN if an image contains NaN. It is used if it is at most REPLAY_BOUND.
    """
    distances = [
        relative_l2(image.astype(np.float64), other.astype(np.float64))
        for image, other in zip(images, expected, strict=True)
    ]
    return float(np.max(distances))
