"""The interface of backends.

A backend computes one move of an opened model, or, on a device, a whole schedule.
"""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, Protocol, TypeGuard, TypeVar

import numpy as np

from ...errors import BackendError
from ..machine.install_hints import Extra, install_line
from ..noise import Draw
from ..schedule import Move
from ..storage.manifest import ON_GPUS
from ..wording import setting

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


@dataclass(frozen=True)
class BackendInfo:
    """The declaration of a backend module about itself."""

    name: str  # as users write it
    summary: str  # in a few words, for the help of --backend
    purpose: Literal["play", "check", "test"]  # what the backend is used for
    device: Literal["cpu", "gpu", "none"]  # where it computes
    precisions: tuple[str, ...]  # the precisions that it can compute
    libraries: tuple[str, ...] = ()  # the modules that it imports
    extra: Extra | None = None  # the extra of this package that installs the libraries
    plays_engines: bool = False  # whether it plays engines of the bundle, which determine the precision
    automatic: bool = True  # whether "auto" may select it

    def missing(self) -> str | None:
        """Return which libraries are not installed and how to install them, or None if all are installed."""
        absent = [name for name in self.libraries if importlib.util.find_spec(name) is None]
        if not absent or self.extra is None:
            return None
        verb = "is" if len(absent) == 1 else "are"
        return f"{' and '.join(absent)} {verb} not installed; {install_line(self.extra)}"


def for_gpus(precision: str) -> str | None:
    """Return why a CPU does not play a precision that is for GPUs, or None for another precision."""
    if precision not in ON_GPUS:
        return None
    return (
        f"{precision} graphs are for NVIDIA GPUs, for which bcm-edge build compiles them; "
        f"on a CPU, use {setting('precision', 'int8')}"
    )


class Backend(Protocol):
    """An opened model. The chain calls `play_move` once per network call.

    Any number of threads may share a backend.
    """

    name: str
    precision: str  # the precision of its graphs
    sample_shape: tuple[int, int, int]  # (C, H, W)
    num_classes: int | None  # None for a model without classes

    @property
    def device(self) -> str:
        """The device, in the words of a report: "CPU, 2 threads"."""
        ...

    def play_move(
        self, x: np.ndarray, noise: np.ndarray | None, move: Move, labels: np.ndarray | None
    ) -> np.ndarray:
        """Return f(x + noise, move.t, move.u, labels) as a new float32 [N, C, H, W].

        x, noise: float32 [N, C, H, W]; noise may be None.
        labels: int64 [N] for a model with classes, else None.
        """
        ...

    def close(self) -> None:
        """Free the memory of the backend.

        Moves that other threads have begun end normally. Later ones raise BackendError.
        """
        ...


class DeviceBackend(Backend, Protocol):
    """A backend whose states stay on a device from move to move. The chain passes it a whole schedule.

    In both methods noises[i] is added to the state before moves[i]; None adds nothing. x and noises are
    float32 [N, C, H, W] each, or a Draw, which the device may draw itself.
    """

    files: dict[str, str]  # the files that it uses besides the graphs: name in the bundle → sha256
    max_batch: int  # the largest batch; larger batches raise BackendError

    @property
    def draws(self) -> bool:
        """Whether the device draws noise. Otherwise it gets a Draw too, and draws on the host."""
        ...

    def play_moves(
        self,
        x: np.ndarray | Draw,
        moves: Sequence[Move],
        noises: Sequence[np.ndarray | Draw | None],
        labels: np.ndarray | None,
        every: bool,
    ) -> np.ndarray:
        """Return the states after every move, or only the last state: a new float32 [moves or 1, N, C, H, W].

        every: whether all states are returned.
        """
        ...

    def play_to_pixels(
        self,
        x: np.ndarray | Draw,
        moves: Sequence[Move],
        noises: Sequence[np.ndarray | Draw | None],
        labels: np.ndarray | None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the last state as pixels, uint8 [N, C, H, W], and which samples were finite, bool [N].

        The device clips and rounds.
        """
        ...


def on_device(backend: Backend) -> TypeGuard[DeviceBackend]:
    """Whether the states of a backend stay on a device from move to move."""
    return hasattr(backend, "play_moves")


class Opened(Generic[Key, Value]):
    """Values that are created at their first use.

    Each is created once, even if several threads need it at the same time.
    """

    def __init__(self, make: Callable[[Key], Value]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._values: dict[Key, Value] | None = {}  # None: closed

    def get(self, key: Key) -> Value:
        """Return the value of a key, created now if the key is new. Raises BackendError after `close`."""
        with self._lock:
            if self._values is None:
                raise closed_error()
            if key not in self._values:
                self._values[key] = self._make(key)
            return self._values[key]

    def close(self) -> None:
        """Drop all values. A value that a thread still uses is freed when the thread has finished with it."""
        with self._lock:
            self._values = None


def closed_error() -> BackendError:
    """Return the error of calls after `close`."""
    return BackendError("this model has been closed; load the bundle again")


def graph_inputs(
    x: np.ndarray, noise: np.ndarray | None, move: Move, labels: np.ndarray | None
) -> dict[str, np.ndarray]:
    """Return the inputs of move.graph for one move, by name.

    All graphs have the inputs x, t and u. The inverse graph also has noise; graphs of a model with classes
    have label.
    """
    inputs = {"t": np.full(len(x), move.t, np.float32), "u": np.full(len(x), move.u, np.float32)}
    if move.graph == "inverse":
        inputs |= {"x": x, "noise": np.zeros_like(x) if noise is None else noise}
    else:
        inputs["x"] = x if noise is None else x + noise
    if labels is not None:
        inputs["label"] = labels
    return inputs
