"""What a backend is: something that can play one move of an opened model, and, where a device makes that worth it, many at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from ..schedule import Move


class Backend(Protocol):
    """An opened model. The chain calls `play_move` once per network evaluation."""

    name: str
    precision: str  # of the graphs it plays
    sample_shape: tuple[int, int, int]  # (C, H, W)
    num_classes: int | None

    @property
    def device(self) -> str:
        """What it runs on, for people: "CPU, 2 threads"."""
        ...

    def play_move(self, x: np.ndarray, noise: np.ndarray | None, move: Move, labels: np.ndarray | None) -> np.ndarray:
        """f(x + noise, move.t, move.u, labels).

        x, noise: float32 [N, C, H, W]; labels: int64 [N], exactly when the model has classes. Returns a new float32 [N, C, H, W].
        """
        ...

    def close(self) -> None:
        """Free what the backend holds. It cannot play afterwards."""
        ...


@runtime_checkable
class DeviceBackend(Backend, Protocol):
    """A backend whose states stay on a device from move to move. The chain asks it for a whole schedule.

    In both: noises[i] is float32 [N, C, H, W], added to the state before moves[i], or None.
    """

    files: dict[str, str]  # what it plays besides the graphs it was made from: name in the bundle → sha256
    max_batch: int  # more are refused

    def play_moves(
        self, x: np.ndarray, moves: Sequence[Move], noises: Sequence[np.ndarray | None], labels: np.ndarray | None, every: bool
    ) -> np.ndarray:
        """The states after every move, or after the last alone: a new float32 [moves or 1, N, C, H, W]."""
        ...

    def play_to_pixels(
        self, x: np.ndarray, moves: Sequence[Move], noises: Sequence[np.ndarray | None], labels: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """The last state as pixels, uint8 [N, C, H, W], clipped and rounded on the device; and bool [N]: which were finite."""
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
