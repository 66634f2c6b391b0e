"""What a backend is: something that can play one move of an opened model, and, where a device makes that worth it, many at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Sequence
from typing import Generic, Protocol, TypeVar, runtime_checkable

import numpy as np

from ...errors import BackendError
from ..schedule import Move

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class Backend(Protocol):
    """An opened model. The chain calls `play_move` once per network evaluation. Any number of threads may share it."""

    name: str
    precision: str  # of the graphs it plays
    sample_shape: tuple[int, int, int]  # (C, H, W)
    num_classes: int | None

    @property
    def device(self) -> str:
        """What it runs on, for people: "CPU, 2 threads"."""
        ...

    def play_move(
        self, x: np.ndarray, noise: np.ndarray | None, move: Move, labels: np.ndarray | None
    ) -> np.ndarray:
        """f(x + noise, move.t, move.u, labels).

        x, noise: float32 [N, C, H, W]; labels: int64 [N], exactly when the model has classes. Returns a new float32 [N, C, H, W].
        """
        ...

    def close(self) -> None:
        """Free what the backend holds. Moves that other threads have begun are played to their end; later ones raise BackendError."""
        ...


@runtime_checkable
class DeviceBackend(Backend, Protocol):
    """A backend whose states stay on a device from move to move. The chain asks it for a whole schedule.

    In both: noises[i] is float32 [N, C, H, W], added to the state before moves[i], or None.
    """

    files: dict[str, str]  # what it plays besides the graphs it was made from: name in the bundle → sha256
    max_batch: int  # more are refused

    def play_moves(
        self,
        x: np.ndarray,
        moves: Sequence[Move],
        noises: Sequence[np.ndarray | None],
        labels: np.ndarray | None,
        every: bool,
    ) -> np.ndarray:
        """The states after every move, or after the last alone: a new float32 [moves or 1, N, C, H, W]."""
        ...

    def play_to_pixels(
        self,
        x: np.ndarray,
        moves: Sequence[Move],
        noises: Sequence[np.ndarray | None],
        labels: np.ndarray | None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """The last state as pixels, uint8 [N, C, H, W], clipped and rounded on the device; and bool [N]: which were finite."""
        ...


class Opened(Generic[Key, Value]):
    """Values that are made at their first use: each once, however many threads ask for it at the same time."""

    def __init__(self, make: Callable[[Key], Value]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._values: dict[Key, Value] | None = {}  # None: closed

    def get(self, key: Key) -> Value:
        """The value of a key. Raises BackendError after `close`, and what making the value raises."""
        with self._lock:
            if self._values is None:
                raise closed_error()
            if key not in self._values:
                self._values[key] = self._make(key)
            return self._values[key]

    def close(self) -> None:
        """Drop all values. One that a thread still uses lives until that thread is done with it."""
        with self._lock:
            self._values = None


def closed_error() -> BackendError:
    return BackendError("this model has been closed; load the bundle again")


def graph_inputs(
    x: np.ndarray, noise: np.ndarray | None, move: Move, labels: np.ndarray | None
) -> dict[str, np.ndarray]:
    """The inputs of move.graph for one move, by name: x, t, u, of the inverse graph noise, and label where the model has classes."""
    inputs = {"t": np.full(len(x), move.t, np.float32), "u": np.full(len(x), move.u, np.float32)}
    if move.graph == "inverse":
        inputs |= {"x": x, "noise": np.zeros_like(x) if noise is None else noise}
    else:
        inputs["x"] = x if noise is None else x + noise
    if labels is not None:
        inputs["label"] = labels
    return inputs
