"""What a backend is: something that can play one move of an opened model."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from ..schedule import Move


class Backend(Protocol):
    """An opened model. The chain calls `play_move` once per network evaluation."""

    name: str
    device: str  # what it runs on, for people: "CPU, 2 threads"
    sample_shape: tuple[int, int, int]  # (C, H, W)
    num_classes: int | None

    def play_move(self, x: np.ndarray, noise: np.ndarray | None, move: Move, labels: np.ndarray | None) -> np.ndarray:
        """f(x + noise, move.t, move.u, labels).

        x, noise: float32 [N, C, H, W]; labels: int64 [N], exactly when the model has classes. Returns a new float32 [N, C, H, W].
        """
        ...

    def close(self) -> None:
        """Free what the backend holds. It cannot play afterwards."""
        ...
