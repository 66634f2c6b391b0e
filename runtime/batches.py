"""Rows of a request that one network call gets together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Batch:
    """Some rows of a request's arrays, with their seeds and labels (int64, or None for a model without classes)."""

    where: slice
    seeds: Sequence[int]
    labels: np.ndarray | None

    def of(self, array: np.ndarray) -> np.ndarray:
        """The batch's rows of an array that has one row per image."""
        return array[self.where]


def batches(seeds: Sequence[int], labels: np.ndarray | None, size: int) -> list[Batch]:
    """The rows in order, at most `size` in a batch; one seed and, where there are labels, one label per row."""
    parts = [slice(start, min(start + size, len(seeds))) for start in range(0, len(seeds), size)]
    return [Batch(part, seeds[part], None if labels is None else labels[part]) for part in parts]
