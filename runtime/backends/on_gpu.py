"""What the backends on a GPU share: one stream, turns of threads, a few kept chains, and errors.

Libraries of CUDA are imported only when a backend is opened, after the driver has reported a GPU.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

import numpy as np

from ...errors import BackendError, BcmError
from ..machine.gpu import Gpu, free_memory, is_out_of_memory
from ..noise import Draw
from ..schedule import Move
from ..wording import counted, first_line
from .base import Key, closed_error

if TYPE_CHECKING:
    from ..engines.memory import DeviceMemory


class Chain(Protocol):
    """Memory on a GPU, and what plays schedules in it. It is used by one thread at a time."""

    # Why the work is started call by call. "" or None: it is not, or this is not known yet.
    why_eager: str | None

    def close(self) -> None:
        """Free the memory. No work may be running."""
        ...


AnyChain = TypeVar("AnyChain", bound=Chain)


class GpuBackend(ABC, Generic[Key, AnyChain]):
    """A backend on one GPU. Threads may share it, and take turns.

    Chains are created at their first use and kept under a key, such as the schedule and the batch size. If
    there are too many, the least recently used one is closed.
    """

    def __init__(self, gpu: Gpu, kept: int) -> None:
        """kept: the largest number of chains."""
        self._gpu, self._kept = gpu, kept
        self._lock = threading.Lock()
        self._eager: set[str] = set()  # why schedules are not played as CUDA graphs
        self._chains: OrderedDict[Key, AnyChain] = OrderedDict()  # the last used one at the end

    @property
    def draws(self) -> bool:
        """Whether the GPU draws noise."""
        return self._kernel is not None

    def play_move(
        self, x: np.ndarray, noise: np.ndarray | None, move: Move, labels: np.ndarray | None
    ) -> np.ndarray:
        """Compute a move as a schedule of one move."""
        return self.play_moves(x, [move], [noise], labels, every=False)[0]

    @abstractmethod
    def play_moves(
        self,
        x: np.ndarray | Draw,
        moves: Sequence[Move],
        noises: Sequence[np.ndarray | Draw | None],
        labels: np.ndarray | None,
        every: bool,
    ) -> np.ndarray:
        """Compute the moves on the GPU. The arguments and the result are those of `DeviceBackend`."""

    def close(self) -> None:
        """Free all memory on the GPU, when the schedule that is running has ended."""
        with self._lock, self._explained("closing"):
            if self._stream.is_closed:
                return
            self._device.set_current()
            self._close_chains()
            self._close_library()
            self._stream.sync()
            self._memory.close()
            self._stream.close()

    @abstractmethod
    def _make_chain(self, key: Key) -> AnyChain:
        """Return a new chain. Raises the exceptions of its library."""

    @abstractmethod
    def _close_library(self) -> None:
        """Free what all chains share. No chain is open."""

    @abstractmethod
    def _smaller(self) -> str:
        """What a user can do if the memory of the GPU is exhausted, as the end of a sentence."""

    def _open_stream(self) -> DeviceMemory:
        """Make the GPU current, create the stream of this backend, and return the memory of the GPU.

        It also loads the kernel that draws noise.
        """
        from cuda.core import Device

        from ..engines.memory import DeviceMemory
        from ..engines.noise_kernel import load_kernel

        self._device = Device(self._gpu.index)
        self._device.set_current()
        self._stream = self._device.create_stream()
        self._memory = DeviceMemory(self._device)
        self._kernel, self._host_noise = load_kernel(self._gpu, self._device, self._memory, self._stream)
        return self._memory

    def _noise_text(self) -> str:
        """Return why noise is drawn on the processor, as the end of `device`, or ""."""
        return f", noise from the processor: {self._host_noise}" if self._host_noise else ""

    @contextmanager
    def _turn(self, key: Key, moves: int, n: int) -> Iterator[AnyChain]:
        """Yield the chain of a key. It is created at its first use.

        No other thread uses the GPU while the block runs. moves, n: their number and that of the images, for
        errors.
        """
        with self._lock, self._explained(f"playing {counted(moves, 'move')} at batch {n}"):
            if self._stream.is_closed:
                raise closed_error()
            self._device.set_current()  # for this thread
            if key not in self._chains:
                self._chains[key] = self._new_chain(key)
            self._chains.move_to_end(key)
            try:
                yield self._chains[key]
            except BaseException:
                with suppress(Exception):  # running work must end before its memory is used again
                    self._stream.sync()
                raise
            self._eager = {chain.why_eager for chain in self._chains.values() if chain.why_eager}

    def _new_chain(self, key: Key) -> AnyChain:
        """Return a new chain. If there are too many, the least recently used one is closed first."""
        if len(self._chains) == self._kept:
            _, oldest = self._chains.popitem(last=False)
            oldest.close()
        try:
            return self._make_chain(key)
        except Exception as error:
            if not (self._chains and is_out_of_memory(first_line(error))):
                raise
        self._close_chains()  # their memory may be enough for the new one
        return self._make_chain(key)

    def _close_chains(self) -> None:
        self._stream.sync()
        for chain in self._chains.values():
            chain.close()
        self._chains.clear()

    @contextmanager
    def _explained(self, action: str) -> Iterator[None]:
        """Raise errors of CUDA and of libraries as BackendError.

        action: the beginning of the message, for example "closing". If the memory of the GPU is exhausted,
        the message contains how much is free and what to do.
        """
        try:
            yield
        except Exception as error:  # the errors of the libraries have no common base class
            where, line = f"{action} on {self._gpu.name}", first_line(error)
            if is_out_of_memory(line):
                raise BackendError(
                    f"{where}: out of GPU memory{self._free_memory()}; {self._smaller()}"
                ) from error
            if isinstance(error, BcmError):
                raise
            raise BackendError(f"{where}: {line}") from error

    def _free_memory(self) -> str:
        """Return how much memory of the GPU is free, in brackets, or "" if it is unknown."""
        free = free_memory(self._gpu)
        return "" if free is None else f" ({free / 1e9:.2f} GB free of {self._gpu.memory / 1e9:.1f})"
