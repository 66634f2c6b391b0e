"""TensorRT on an NVIDIA GPU: a bundle's engines, whole schedules at a time, each as one CUDA graph.

`bcm-edge build` makes the engines. Nothing of CUDA or TensorRT is touched before the driver has said that there is a GPU.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from ...errors import BackendError, BcmError
from ..engines.store import Engine, check_plans, find_engine, plan_hashes
from ..machine.gpu import Gpu, free_memory, is_out_of_memory, probe
from ..machine.installed import missing_cuda_core, missing_tensorrt, tensorrt_version
from ..schedule import Move
from ..storage.bundle import Bundle
from ..storage.manifest import PRECISIONS
from ..wording import first_line
from .base import BackendInfo, closed_error

if TYPE_CHECKING:
    from ..engines.device_chain import DeviceChain

CHAINS = 8  # recorded schedules that are kept at least, the latest used; each holds its states and noises on the GPU


INFO = BackendInfo("tensorrt", "play", "gpu", PRECISIONS)  # machine/installed.py checks for its libraries


class TensorRtBackend:
    """The engines of one build on one GPU. Threads may share it; they take turns."""

    name = INFO.name

    def __init__(self, bundle: Bundle, engine: Engine, gpu: Gpu) -> None:
        check_plans(engine)
        model = bundle.manifest.model
        self.engine, self.precision = engine, engine.facts.options.precision
        self.sample_shape, self.num_classes = model.sample_shape, model.num_classes
        self._sizes = batch_sizes(*engine.facts.options.batch)
        self.max_batch = self._sizes[-1]
        self._kept = max(CHAINS, 2 * len(self._sizes))  # two schedules at every batch size
        self.files = plan_hashes(engine.folder.name, engine.facts)
        self._gpu = gpu
        self._lock = threading.Lock()
        self._eager: set[str] = set()  # why schedules were not played as one CUDA graph
        self._chains: OrderedDict[tuple[tuple[Move, ...], tuple[bool, ...], int, bool], DeviceChain] = (
            OrderedDict()
        )
        with self._explained(f"opening {engine.name}"):
            from cuda.core import Device

            from ..engines.loaded import LoadedEngines
            from ..engines.memory import DeviceMemory

            self._device = Device(gpu.index)
            self._device.set_current()
            self._stream = self._device.create_stream()
            self._memory = DeviceMemory(self._device)
            self._engines = LoadedEngines(engine, bundle, self._memory, self._stream)

    @property
    def device(self) -> str:
        """For people: the GPU, TensorRT, and how schedules are played."""
        played = (
            f"one by one: {'; '.join(sorted(self._eager))}" if self._eager else "one CUDA graph per schedule"
        )
        return f"{self._gpu.name}, TensorRT {self.engine.facts.tensorrt}, {played}"

    def play_move(
        self, x: np.ndarray, noise: np.ndarray | None, move: Move, labels: np.ndarray | None
    ) -> np.ndarray:
        return self.play_moves(x, [move], [noise], labels, every=False)[0]

    def play_moves(
        self,
        x: np.ndarray,
        moves: Sequence[Move],
        noises: Sequence[np.ndarray | None],
        labels: np.ndarray | None,
        every: bool,
    ) -> np.ndarray:
        with self._chain(moves, noises, len(x), pixels=False) as chain:
            return chain.play(x, noises, labels, every)

    def play_to_pixels(
        self,
        x: np.ndarray,
        moves: Sequence[Move],
        noises: Sequence[np.ndarray | None],
        labels: np.ndarray | None,
    ) -> tuple[np.ndarray, np.ndarray]:
        with self._chain(moves, noises, len(x), pixels=True) as chain:
            pixels, total = chain.play_to_pixels(x, noises, labels)
        return pixels, np.isfinite(total)

    def close(self) -> None:
        with self._lock, self._explained("closing"):
            if self._stream.is_closed:
                return
            self._device.set_current()
            self._close_chains()
            self._engines.close(self._stream)
            self._stream.sync()
            self._memory.close()
            self._stream.close()

    @contextmanager
    def _chain(
        self, moves: Sequence[Move], noises: Sequence[np.ndarray | None], n: int, pixels: bool
    ) -> Iterator[DeviceChain]:
        """The chain that plays these moves on n images, for this thread alone while the block runs; made at its first use."""
        noisy = tuple(noise is not None for noise in noises)
        key = (tuple(moves), noisy, self._size_for(n), pixels)
        with self._lock, self._explained(f"playing {len(moves)} moves at batch {n}"):
            if self._stream.is_closed:
                raise closed_error()
            self._device.set_current()  # of this thread
            if key not in self._chains:
                self._chains[key] = self._new_chain(*key)
            self._chains.move_to_end(key)
            try:
                yield self._chains[key]
            except BaseException:
                with suppress(Exception):  # whatever is under way has to end before its memory is used again
                    self._stream.sync()
                raise
            self._eager = {chain.why_eager for chain in self._chains.values() if chain.why_eager}

    def _new_chain(
        self, moves: tuple[Move, ...], noisy: tuple[bool, ...], size: int, pixels: bool
    ) -> DeviceChain:
        """A chain, in place of the least recently used one where there are as many as are kept."""
        from ..engines.device_chain import DeviceChain

        if len(self._chains) == self._kept:
            self._chains.popitem(last=False)[1].close()
        shape = (size, *self.sample_shape)
        make = partial(
            DeviceChain, self._engines, self._gpu, self._memory, self._stream, moves, noisy, shape, pixels
        )
        try:
            return make()
        except Exception as error:
            if not (self._chains and is_out_of_memory(first_line(error))):
                raise
        self._close_chains()  # their memory may suffice
        return make()

    def _close_chains(self) -> None:
        self._stream.sync()
        for chain in self._chains.values():
            chain.close()
        self._chains.clear()

    def _size_for(self, n: int) -> int:
        """The batch size that n images are played at. Raises BackendError for too many."""
        if n > self.max_batch:
            raise BackendError(
                f"a batch of {n} is outside the engine's profile ({self._sizes[0]} to {self.max_batch}); play at most "
                f"{self.max_batch} at once, or build another: bcm-edge build … --batch {self._sizes[0]}:{n}:{n}"
            )
        return next(size for size in self._sizes if size >= n)

    @contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        """Errors of CUDA as BackendError; of running out of memory with what is free and what helps."""
        try:
            yield
        except Exception as error:  # cuda-core's and TensorRT's errors share no base class
            line = first_line(error)
            if is_out_of_memory(line):
                free = free_memory(self._gpu)
                known = "" if free is None else f" ({free / 1e9:.2f} GB free of {self._gpu.memory / 1e9:.1f})"
                way_out = (
                    "play fewer images at once, or build a smaller profile: bcm-edge build … --batch 1:1:4"
                )
                raise BackendError(
                    f"{what} on {self._gpu.name}: out of GPU memory{known}; {way_out}"
                ) from error
            if isinstance(error, BcmError):
                raise
            raise BackendError(f"{what} on {self._gpu.name}: {line}") from error


def batch_sizes(smallest: int, common: int, largest: int) -> list[int]:
    """The batch sizes at which a profile's engines are played: its three, and the powers of two between, in ascending order.

    Each size has a recording and memory of its own, so a batch is filled up to the next of these few.
    """
    powers = {1 << k for k in range(largest.bit_length())}
    return sorted({smallest, common, largest} | {size for size in powers if smallest < size < largest})


def unavailable(precision: str | None, bundle: Bundle | None = None) -> str | None:
    """Return why TensorRT cannot play here, or, with a bundle, why it has no engine for this GPU; None if it can."""
    try:
        gpu = probe()
        if reason := missing_tensorrt(gpu) or missing_cuda_core(gpu):
            return reason
        if bundle is not None:
            find_engine(bundle, gpu, tensorrt_version(), precision, built_here=True)
    except BackendError as error:
        return str(error)
    return None


def open(bundle: Bundle, precision: str | None) -> TensorRtBackend:
    """The newest engine that fits this GPU; precision: None takes what was built. Raises BackendError."""
    gpu = probe()
    return TensorRtBackend(bundle, find_engine(bundle, gpu, tensorrt_version(), precision), gpu)
