"""What a backend is: something that can play one move of an opened model."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from ..schedule import Move


class Backend(Protocol):
    """An opened model. The chain calls `play_move` once per network evaluation."""

    name: str
    precision: str  # of the graphs it plays
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


def graph_inputs(x: np.ndarray, noise: np.ndarray | None, move: Move, labels: np.ndarray | None) -> dict[str, np.ndarray]:
    """The inputs of move.graph for one move, by name: x, t, u, of the inverse graph noise, and label where the model has classes."""
    inputs = {"t": np.full(len(x), move.t, np.float32), "u": np.full(len(x), move.u, np.float32)}
    if move.graph == "inverse":
        inputs |= {"x": x, "noise": np.zeros_like(x) if noise is None else noise}
    else:
        inputs["x"] = x if noise is None else x + noise
    if labels is not None:
        inputs["label"] = labels
    return inputs


def first_line(error: Exception) -> str:
    """What a library's error says first; the rest is its call stack."""
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
