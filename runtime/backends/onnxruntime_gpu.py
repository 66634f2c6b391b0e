"""What the backends of ONNX Runtime on a GPU share. They differ in the execution provider.

The session is opened on the inverse graph. With noise 0 it computes a forward move to the last bit, so one
session serves both directions, and the weights are on the GPU once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from ...errors import BackendError
from ..batches import BATCH
from ..gpu_sessions.session import Provider, open_gpu_session
from ..machine.gpu import Gpu, probe
from ..machine.onnxruntime_gpu import missing_onnxruntime_gpu
from ..machine.placement import ANYWHERE, Placement
from ..noise import Draw
from ..pixels import to_uint8
from ..schedule import Move
from ..storage.bundle import Bundle
from .base import BackendInfo, closed_error
from .on_gpu import GpuBackend

if TYPE_CHECKING:
    import onnxruntime

    from ..gpu_sessions.chain import SessionChain

Result = TypeVar("Result")

# The batch sizes at which sessions are played. Each has memory of its own, allocated at its first use. Other
# batches are filled up to the next of these sizes.
BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class OnnxRuntimeGpuBackend(GpuBackend[int, "SessionChain"]):
    """One session on one GPU. Threads may share it, and take turns.

    The chains are kept under their batch size. All work is done by one thread, because ONNX Runtime keeps
    CUDA graphs for the thread that recorded them.
    """

    def __init__(
        self,
        name: str,
        bundle: Bundle,
        precision: str,
        gpu: Gpu,
        provider: Callable[[int], Provider],
        max_batch: int = BATCH_SIZES[-1],
    ) -> None:
        """Open the session.

        provider: the handle of the stream on which the session shall work → the execution provider.
        max_batch: the largest batch, one of BATCH_SIZES. Raises BackendError.
        """
        self.max_batch = max_batch
        super().__init__(gpu, kept=len(BATCH_SIZES))
        model = bundle.manifest.model
        self.name, self.precision = name, precision
        self.sample_shape, self.num_classes = model.sample_shape, model.num_classes
        self.files: dict[str, str] = {}
        self._graph = bundle.graphs(precision)["inverse"]
        self._numbers = count()  # of the chains that have been created
        self._worker = ThreadPoolExecutor(1, "bcm-edge-gpu")
        try:
            self._worker.submit(self._open, provider).result()
        except BaseException:
            self._worker.shutdown()
            raise

    @property
    def device(self) -> str:
        """The GPU, the version and provider of ONNX Runtime, and how moves are run, as reports write it."""
        import onnxruntime

        mode = "one CUDA graph per move"
        if self._provider.graph_option is None:
            mode = "without CUDA graphs"
        if reasons := "; ".join(sorted(self._eager)) or self._provider.why_eager:
            mode = f"without CUDA graphs: {reasons}"
        if self._provider.compiles_anew:
            mode += ", compiled at each start because the cache folder cannot be used"
        library = f"ONNX Runtime {onnxruntime.__version__}, {self._provider.title}"
        return f"{self._gpu.name}, {library}, {mode}{self._noise_text()}"

    def play_moves(
        self,
        x: np.ndarray | Draw,
        moves: Sequence[Move],
        noises: Sequence[np.ndarray | Draw | None],
        labels: np.ndarray | None,
        every: bool,
    ) -> np.ndarray:
        """Compute the moves on the GPU. Only the last state is copied to the host, or every one."""
        size = batch_size(len(x), self.max_batch)

        def play() -> np.ndarray:
            with self._turn(size, len(moves), len(x)) as chain:
                return chain.play(x, moves, noises, labels, every)

        return self._in_worker(play)

    def play_to_pixels(
        self,
        x: np.ndarray | Draw,
        moves: Sequence[Move],
        noises: Sequence[np.ndarray | Draw | None],
        labels: np.ndarray | None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Compute the moves on the GPU. The host converts the last state to pixels."""
        (images,) = self.play_moves(x, moves, noises, labels, every=False)
        finite = np.isfinite(images).reshape(len(images), -1).all(axis=1)
        return to_uint8(np.nan_to_num(images, nan=0.0)), finite

    def close(self) -> None:
        """Free all memory on the GPU, when the schedule that is running has ended."""
        if not self._stream.is_closed:
            self._in_worker(super().close)
        self._worker.shutdown()

    def _in_worker(self, work: Callable[[], Result]) -> Result:
        """Return the result of a call by the thread that does all work. Raises BackendError after `close`."""
        try:
            future = self._worker.submit(work)
        except RuntimeError:  # it has been shut down
            raise closed_error() from None
        return future.result()

    def _open(self, provider: Callable[[int], Provider]) -> None:
        with self._explained(f"opening {self._graph.name}"):
            self._open_stream()
            self._provider = provider(int(self._stream.handle))
            self._session: onnxruntime.InferenceSession | None = open_gpu_session(self._graph, self._provider)

    def _make_chain(self, key: int) -> SessionChain:
        from ..gpu_sessions.chain import SessionChain

        assert self._session is not None
        return SessionChain(
            self._session,
            self._gpu.index,
            self._memory,
            self._stream,
            self._kernel,
            (key, *self.sample_shape),
            self.num_classes,
            self._provider.graph_option,
            2 * next(self._numbers),
        )

    def _close_library(self) -> None:
        self._session = None

    def _smaller(self) -> str:
        return "play fewer images at once, for example --batch 16, or choose fp16"


def batch_size(n: int, largest: int = BATCH_SIZES[-1]) -> int:
    """Return the batch size at which n images are played. Raises BackendError if n is too large."""
    if n > largest:
        raise BackendError(f"a batch of {n} is too large; play at most {largest} images at once")
    return next(size for size in BATCH_SIZES if size >= n)


def largest_batch(placement: Placement) -> int:
    """Return the batch size that a backend accepts at most: that of the caller, or BATCH.

    Larger ones need more memory, and a provider that compiles would compile for them.
    """
    return batch_size(min(placement.batch or BATCH, BATCH_SIZES[-1]))


def why_unavailable(info: BackendInfo, provider: str, precision: str, placement: Placement) -> str | None:
    """Return why a provider of ONNX Runtime cannot be used here, or None if it can."""
    try:
        gpu = probe(placement.gpu)
    except BackendError as error:
        return str(error)
    if precision not in info.precisions:
        accepted = " or ".join(info.precisions)
        return f"{precision} is not played with this provider of ONNX Runtime; choose {accepted}"
    return missing_onnxruntime_gpu(gpu, provider)


def open_on_gpu(
    name: str,
    bundle: Bundle,
    precision: str,
    provider: Callable[[Gpu, int], Provider],
    placement: Placement = ANYWHERE,
    max_batch: int = BATCH_SIZES[-1],
) -> OnnxRuntimeGpuBackend:
    """Open a bundle with an execution provider on the GPU of the placement.

    provider: the GPU and the handle of a stream → the execution provider. max_batch: the largest batch.
    Raises BackendError.
    """
    gpu = probe(placement.gpu)
    return OnnxRuntimeGpuBackend(
        name, bundle, precision, gpu, lambda stream: provider(gpu, stream), max_batch
    )
