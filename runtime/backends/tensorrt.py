"""TensorRT on an NVIDIA GPU. A whole schedule is played on the engines of a bundle as one CUDA graph.

`bcm-edge build` creates the engines. Libraries of CUDA and TensorRT are imported only after the driver has
reported a GPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ...errors import BackendError
from ..engines.chain_key import ChainKey, chain_key
from ..engines.profiles import batch_sizes
from ..engines.store import Engine, check_plans, find_engine, plan_hashes
from ..machine.gpu import Gpu, cannot_compute, probe
from ..machine.installed import missing_cuda_core, missing_tensorrt, tensorrt_version
from ..machine.placement import ANYWHERE, Placement
from ..noise import Draw
from ..schedule import Move
from ..storage.bundle import Bundle
from ..storage.manifest import PRECISIONS
from .base import BackendInfo
from .on_gpu import GpuBackend

if TYPE_CHECKING:
    from ..engines.device_chain import DeviceChain

# At least this number of recorded schedules is kept; the least recently used ones are dropped. Each needs GPU
# memory for its states and noises.
CHAINS = 8

# It declares no libraries, because machine/installed.py checks them.
INFO = BackendInfo("tensorrt", "NVIDIA GPU, engines", "play", "gpu", PRECISIONS, plays_engines=True)


class TensorRtBackend(GpuBackend[ChainKey, "DeviceChain"]):
    """The engines of one build on one GPU. Threads may share it, and take turns."""

    name = INFO.name

    def __init__(self, bundle: Bundle, engine: Engine, gpu: Gpu) -> None:
        check_plans(engine)
        self._sizes = batch_sizes(engine.facts.options.profiles)
        super().__init__(gpu, kept=max(CHAINS, 2 * len(self._sizes)))  # two schedules at every batch size
        model = bundle.manifest.model
        self.engine, self.precision = engine, engine.facts.options.precision
        self.sample_shape, self.num_classes = model.sample_shape, model.num_classes
        self.max_batch = self._sizes[-1]
        self.files = plan_hashes(engine.folder.name, engine.facts)
        with self._explained(f"opening {engine.name}"):
            memory = self._open_stream()

            from ..engines.loaded import LoadedEngines

            self._engines = LoadedEngines(engine, bundle, memory, self._stream)

    @property
    def device(self) -> str:
        """The GPU, the version of TensorRT, and how schedules are played, in the words of a report."""
        mode = "one CUDA graph per schedule"
        if self._eager:
            mode = f"one by one: {'; '.join(sorted(self._eager))}"
        return f"{self._gpu.name}, TensorRT {self.engine.facts.tensorrt}, {mode}{self._noise_text()}"

    def play_moves(
        self,
        x: np.ndarray | Draw,
        moves: Sequence[Move],
        noises: Sequence[np.ndarray | Draw | None],
        labels: np.ndarray | None,
        every: bool,
    ) -> np.ndarray:
        """Compute the moves on the GPU. The states are copied to the host once."""
        key = self._key(x, moves, noises, pixels=False)
        with self._turn(key, len(moves), len(x)) as chain:
            return chain.play(x, noises, labels, every)

    def play_to_pixels(
        self,
        x: np.ndarray | Draw,
        moves: Sequence[Move],
        noises: Sequence[np.ndarray | Draw | None],
        labels: np.ndarray | None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Compute the moves and the conversion to pixels on the GPU."""
        key = self._key(x, moves, noises, pixels=True)
        with self._turn(key, len(moves), len(x)) as chain:
            pixels, total = chain.play_to_pixels(x, noises, labels)
        return pixels, np.isfinite(total)

    def _key(
        self,
        x: np.ndarray | Draw,
        moves: Sequence[Move],
        noises: Sequence[np.ndarray | Draw | None],
        pixels: bool,
    ) -> ChainKey:
        shape = (self._size_for(len(x)), *self.sample_shape)
        return chain_key(x, moves, noises, shape, pixels, draws=self.draws)

    def _make_chain(self, key: ChainKey) -> DeviceChain:
        from ..engines.device_chain import DeviceChain

        return DeviceChain(self._engines, self._gpu, self._memory, self._stream, key, self._kernel)

    def _close_library(self) -> None:
        self._engines.close(self._stream)

    def _smaller(self) -> str:
        advice = "play fewer images at once, or build a smaller profile: bcm-edge build … --batch 1:1:4"
        if self.engine.facts.options.single:
            return advice
        return f"{advice}, or one engine for both directions: --single-engine"

    def _size_for(self, n: int) -> int:
        """Return the batch size at which n images are played. Raises BackendError if n is too large."""
        if n > self.max_batch:
            profiles = self.engine.facts.options.profiles_text
            raise BackendError(
                f"a batch of {n} is outside the engine's profiles ({profiles}); "
                f"play at most {self.max_batch} images at once, or build another engine: "
                f"bcm-edge build … --batch {self._sizes[0]}:{n}:{n}"
            )
        return next(size for size in self._sizes if size >= n)


def unavailable(
    precision: str | None, bundle: Bundle | None = None, placement: Placement = ANYWHERE
) -> str | None:
    """Return why TensorRT cannot be used here, or None if it can.

    bundle: if given, it must also contain an engine for this GPU that was built on this machine.
    """
    try:
        gpu = probe(placement.gpu)
        if reason := missing_tensorrt(gpu) or missing_cuda_core(gpu) or cannot_compute(gpu, precision):
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
