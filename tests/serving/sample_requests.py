"""Requests with one sample, and the labels and seeds of requests with four."""

from __future__ import annotations

from typing import Any

import numpy as np

LABELS = np.array([3, 1, 4, 1])  # labels of the fixture `digits`
SEEDS = np.array([5, 9, 2, 6], np.uint64)

# Inputs of one sample: for bcm_generate, for tasks with an image, and for single moves.
ONE: dict[str, Any] = {"seed": np.uint64(1), "label": 1}
IMAGE: dict[str, Any] = {"image": np.full((1, 1, 8, 8), -1, np.float32), **ONE}
LEVELS: dict[str, Any] = {
    "x": np.zeros((1, 1, 8, 8), np.float32),
    "t": np.float32(80),
    "u": np.float32(0.002),
    "label": 1,
}
