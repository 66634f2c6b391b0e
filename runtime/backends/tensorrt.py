"""TensorRT on an NVIDIA GPU. A whole schedule is played on the engines of a bundle as one CUDA graph.

`bcm-edge build` creates the engines. Libraries of CUDA and TensorRT are imported only after the driver has
reported a GPU.
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
from ..machine.placement import ANYWHERE, Placement
from ..schedule import Move
from ..storage.bundle import Bundle
from ..storage.manifest import PRECISIONS
from ..wording import first_line
from .base import BackendInfo, closed_error

if TYPE_CHECKING:
    from ..engines.device_chain import DeviceChain

# At least this number of recorded schedules is kept; the least recently used ones are dropped. Each needs GPU
# memory for its states and noises.
CHAINS = 8

# It declares no libraries, because machine/installed.py checks them.
INFO = BackendInfo("tensorrt", "NVIDIA GPU", "play", "gpu", PRECISIONS)

# The key of a recorded schedule: its moves, which of them have noise, the batch size, and whether the result
# is pixels.
_Key = tuple[tuple[Move, ...], tuple[bool, ...], int, bool]


class TensorRtBackend:
    """The engines of one build on one GPU. Threads may share it, and take turns."""

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
        self._eager: set[str] = set()  # why schedules are not played as CUDA graphs
        self._chains: OrderedDict[_Key, DeviceChain] = OrderedDict()  # the last used one at the end
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
        """The GPU, the version of TensorRT, and how schedules are played, in the words of a report."""
        mode = "one CUDA graph per schedule"
        if self._eager:
            mode = f"one by one: {'; '.join(sorted(self._eager))}"
        return f"{self._gpu.name}, TensorRT {self.engine.facts.tensorrt}, {mode}"

    def play_move(
        self, x: np.ndarray, noise: np.ndarray | None, move: Move, labels: np.ndarray | None
    ) -> np.ndarray:
        """Compute a move as a schedule of one move."""
        return self.play_moves(x, [move], [noise], labels, every=False)[0]

    def play_moves(
        self,
        x: np.ndarray,
        moves: Sequence[Move],
        noises: Sequence[np.ndarray | None],
        labels: np.ndarray | None,
        every: bool,
    ) -> np.ndarray:
        """Compute the moves on the GPU. The states are copied to the host once."""
        with self._chain(moves, noises, len(x), pixels=False) as chain:
            return chain.play(x, noises, labels, every)

    def play_to_pixels(
        self,
        x: np.ndarray,
        moves: Sequence[Move],
        noises: Sequence[np.ndarray | None],
        labels: np.ndarray | None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Compute the moves and the conversion to pixels on the GPU."""
        with self._chain(moves, noises, len(x), pixels=True) as chain:
            pixels, total = chain.play_to_pixels(x, noises, labels)
        return pixels, np.isfinite(total)

    def close(self) -> None:
        """Free all memory on the GPU, when the schedule that is running has ended."""
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
        """Yield the chain that plays these moves on n images. It is created at its first use.

        No other thread uses the GPU while the block runs.
        """
        noisy = tuple(noise is not None for noise in noises)
        key: _Key = (tuple(moves), noisy, self._size_for(n), pixels)
        with self._lock, self._explained(f"playing {len(moves)} moves at batch {n}"):
            if self._stream.is_closed:
                raise closed_error()
            self._device.set_current()  # for this thread
            if key not in self._chains:
                self._chains[key] = self._new_chain(*key)
            self._chains.move_to_end(key)
            try:
                yield self._chains[key]
            except BaseException:
                with suppress(Exception):  # running work must end before its memory is used again
                    self._stream.sync()
                raise
            self._eager = {chain.why_eager for chain in self._chains.values() if chain.why_eager}

    def _new_chain(
        self, moves: tuple[Move, ...], noisy: tuple[bool, ...], size: int, pixels: bool
    ) -> DeviceChain:
        """Return a new chain. If there are too many, the least recently used one is closed first."""
        from ..engines.device_chain import DeviceChain

        if len(self._chains) == self._kept:
            _, oldest = self._chains.popitem(last=False)
            oldest.close()
        shape = (size, *self.sample_shape)
        make = partial(
            DeviceChain, self._engines, self._gpu, self._memory, self._stream, moves, noisy, shape, pixels
        )
        try:
            return make()
        except Exception as error:
            if not (self._chains and is_out_of_memory(first_line(error))):
                raise
        self._close_chains()  # their memory may be enough for the new one
        return make()

    def _close_chains(self) -> None:
        self._stream.sync()
        for chain in self._chains.values():
            chain.close()
        self._chains.clear()

    def _size_for(self, n: int) -> int:
        """Return the batch size at which n images are played. Raises BackendError if there is none."""
        smallest, largest = self._sizes[0], self.max_batch
        if n > largest:
            raise BackendError(
                f"a batch of {n} is outside the engine's profile ({smallest} to {largest}); "
                f"play at most {largest} images at once, or build another engine: "
                f"bcm-edge build … --batch {smallest}:{n}:{n}"
            )
        return next(size for size in self._sizes if size >= n)

    @contextmanager
    def _explained(self, action: str) -> Iterator[None]:
        """Raise errors of CUDA and TensorRT as BackendError.

        action: the beginning of the message, for example "closing". If the memory of the GPU is exhausted,
        the message contains how much is free and what to do.
        """
        try:
            yield
        except Exception as error:  # the errors of cuda-core and TensorRT have no common base class
            where, line = f"{action} on {self._gpu.name}", first_line(error)
            if is_out_of_memory(line):
                raise BackendError(
                    f"{where}: out of GPU memory{self._free_memory()}; play fewer images at once, "
                    "or build a smaller profile: bcm-edge build … --batch 1:1:4"
                ) from error
            if isinstance(error, BcmError):
                raise
            raise BackendError(f"{where}: {line}") from error

    def _free_memory(self) -> str:
        """Return how much memory of the GPU is free, in brackets, or "" if it is unknown."""
        free = free_memory(self._gpu)
        return "" if free is None else f" ({free / 1e9:.2f} GB free of {self._gpu.memory / 1e9:.1f})"


def batch_sizes(smallest: int, common: int, largest: int) -> list[int]:
    """Return the batch sizes at which the engines of a profile are played, in ascending order.

    They are the three sizes of the profile, and the powers of two between the smallest and the largest. Each
    size has its own recording and memory. Other batches are filled up to the next of these sizes.
    """
    powers = [1 << k for k in range(largest.bit_length())]
    between = [size for size in powers if smallest < size < largest]
    return sorted({smallest, common, largest, *between})


def unavailable(
    precision: str | None, bundle: Bundle | None = None, placement: Placement = ANYWHERE
) -> str | None:
    """Return why TensorRT cannot be used here, or None if it can.

    bundle: if given, it must also contain an engine for this GPU that was built on this machine.
    """
    try:
        gpu = probe(placement.gpu)
        if reason := missing_tensorrt(gpu) or missing_cuda_core(gpu):
            return reason
        if bundle is not None:
            find_engine(bundle, gpu, tensorrt_version(), precision, built_here=True)
    except BackendError as error:
        return str(error)
    return None


def open(bundle: Bundle, precision: str | None, placement: Placement = ANYWHERE) -> TensorRtBackend:
    """Open the newest engine of a bundle that fits the GPU of the placement.

    precision: None accepts an engine of any precision. Raises BackendError.
    """
    gpu = probe(placement.gpu)
    engine = find_engine(bundle, gpu, tensorrt_version(), precision)
    return TensorRtBackend(bundle, engine, gpu)
