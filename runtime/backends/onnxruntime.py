"""ONNX Runtime on the CPU: the default everywhere.

A session is not opened on the bundle's graphs but on what ONNX Runtime's optimiser makes of them for this processor, kept in
the cache (optimised.py): convolution weights already in blocked order, in a file that is memory-mapped and never copied. That takes
loading the ImageNet-64 network to 0.2 processor seconds and 0.1 GB of its own memory a direction; both map one file.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...errors import BackendError, OutputError
from ..log import log, timed
from ..machine.resources import threads
from ..schedule import Move
from ..storage.bundle import Bundle
from ..wording import first_line
from .base import BackendInfo, Opened, graph_inputs
from .optimised import optimised_graphs
from .sessions import open_optimised, open_session, session_options

if TYPE_CHECKING:
    import onnxruntime


INFO = BackendInfo("onnxruntime", "play", "cpu", ("fp32", "fp16", "int8"), ("onnxruntime",), "run")


class OnnxRuntimeBackend:
    """Sessions of both directions, each opened at its first move. Threads may run one session at the same time."""

    name = INFO.name

    def __init__(
        self,
        graphs: dict[str, Path],
        optimised: bool,
        sample_shape: tuple[int, int, int],
        num_classes: int | None,
        precision: str = "fp32",
    ) -> None:
        self.precision = precision
        self.sample_shape = sample_shape
        self.num_classes = num_classes
        self.device = f"CPU, {threads()} threads"
        if precision == "fp16":
            self.device += ", computed in float32"
        self._graphs = graphs
        self._optimised = optimised
        self._sessions: Opened[str, onnxruntime.InferenceSession] = Opened(self._open_direction)

    def play_move(
        self, x: np.ndarray, noise: np.ndarray | None, move: Move, labels: np.ndarray | None
    ) -> np.ndarray:
        session = self._session(move.graph)
        try:
            return np.asarray(session.run(None, graph_inputs(x, noise, move, labels))[0])
        except Exception as error:  # inputs that a bundle's graphs do not take, or no memory for a batch
            raise BackendError(
                f"ONNX Runtime cannot play {move} at batch {len(x)}: {first_line(error)}"
            ) from error

    def close(self) -> None:
        self._sessions.close()

    def _session(self, direction: str) -> onnxruntime.InferenceSession:
        return self._sessions.get(direction)

    def _open_direction(self, direction: str) -> onnxruntime.InferenceSession:
        with timed(f"{self.name}: opening {self._graphs[direction]}"):
            return self._open(self._graphs[direction])

    def _open(self, graph: Path) -> onnxruntime.InferenceSession:
        return open_optimised(graph) if self._optimised else open_session(graph, session_options())


def unavailable(precision: str, bundle: Bundle | None = None) -> str | None:
    """Return why ONNX Runtime cannot play a precision here, or None if it can."""
    if reason := INFO.missing():
        return reason
    if precision == "bf16":
        return "ONNX Runtime has no bfloat16 convolutions on a CPU; use --backend openvino"
    return None


def open(bundle: Bundle, precision: str) -> OnnxRuntimeBackend:
    """Open a bundle's graphs in their optimised form, or as they are where that cannot be had; `device` says why."""
    model = bundle.manifest.model
    try:
        return OnnxRuntimeBackend(
            optimised_graphs(bundle, precision), True, model.sample_shape, model.num_classes, precision
        )
    except (
        OutputError,
        BackendError,
    ) as error:  # a cache that cannot be written; a graph that cannot be opened says so at its first move
        backend = OnnxRuntimeBackend(
            bundle.graphs(precision), False, model.sample_shape, model.num_classes, precision
        )
        backend.device += f", no cache ({error})"
        log.info("onnxruntime: the bundle's graphs are opened as they are: %s", error)
        return backend
