"""ONNX Runtime on the CPU: the default backend on every machine.

Sessions are not opened on the graphs of the bundle, but on graphs that ONNX Runtime optimised for this
processor. These are in a cache (optimised.py). Their convolution weights are in blocked order, in a file that
is memory-mapped and not copied. Both directions map one file. A direction of the ImageNet-64 network is
loaded in 0.2 processor seconds, and needs 0.1 GB of memory besides the file.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...errors import BackendError, OutputError
from ..log import log, timed
from ..machine.placement import ANYWHERE, Placement
from ..schedule import Move
from ..storage.bundle import Bundle
from ..wording import counted, first_line, setting
from .base import BackendInfo, Opened, for_gpus, graph_inputs
from .optimised import optimised_graphs
from .sessions import open_optimised, open_session, session_options

if TYPE_CHECKING:
    import onnxruntime


INFO = BackendInfo("onnxruntime", "CPU", "play", "cpu", ("fp32", "fp16", "int8"), ("onnxruntime",), "run")


class OnnxRuntimeBackend:
    """Sessions of both directions, opened at their first move. Threads may share a session."""

    name = INFO.name

    def __init__(
        self,
        graphs: dict[str, Path],
        optimised: bool,
        sample_shape: tuple[int, int, int],
        num_classes: int | None,
        precision: str = "fp32",
        placement: Placement = ANYWHERE,
    ) -> None:
        """graphs: direction → file. optimised: whether ONNX Runtime has optimised the graphs already."""
        self.precision = precision
        self.sample_shape = sample_shape
        self.num_classes = num_classes
        self.device = f"CPU, {counted(placement.cpu_threads, 'thread')}"
        if precision == "fp16":
            self.device += ", computed in float32"
        self._graphs = graphs
        self._placement = placement
        self._optimised = optimised
        self._sessions: Opened[str, onnxruntime.InferenceSession] = Opened(self._open_direction)

    def play_move(
        self, x: np.ndarray, noise: np.ndarray | None, move: Move, labels: np.ndarray | None
    ) -> np.ndarray:
        """Compute the move in the session of its direction."""
        session = self._session(move.graph)
        try:
            return np.asarray(session.run(None, graph_inputs(x, noise, move, labels))[0])
        except Exception as error:  # wrong inputs, or too little memory
            raise BackendError(
                f"ONNX Runtime cannot play {move} at batch {len(x)}: {first_line(error)}"
            ) from error

    def close(self) -> None:
        """Close the sessions. Later moves raise BackendError."""
        self._sessions.close()

    def _session(self, direction: str) -> onnxruntime.InferenceSession:
        return self._sessions.get(direction)

    def _open_direction(self, direction: str) -> onnxruntime.InferenceSession:
        graph = self._graphs[direction]
        with timed(f"{self.name}: opening {graph}"):
            return self._open(graph)

    def _open(self, graph: Path) -> onnxruntime.InferenceSession:
        if self._optimised:
            return open_optimised(graph, self._placement)
        return open_session(graph, session_options(self._placement))


def unavailable(precision: str, bundle: Bundle | None = None, placement: Placement = ANYWHERE) -> str | None:
    """Return why ONNX Runtime cannot play a precision here, or None if it can."""
    if reason := INFO.missing() or for_gpus(precision):
        return reason
    if precision == "bf16":
        advice = f"use {setting('backend', 'openvino')}"
        return f"ONNX Runtime has no bfloat16 convolutions on a CPU; {advice}"
    return None


def open(bundle: Bundle, precision: str, placement: Placement = ANYWHERE) -> OnnxRuntimeBackend:
    """Open the optimised graphs of a bundle, or the graphs of the bundle if there are none.

    In the second case `device` contains the reason, for example a cache that cannot be written. A graph that
    ONNX Runtime cannot open raises BackendError at the first move.
    """
    model = bundle.manifest.model
    facts = (model.sample_shape, model.num_classes, precision, placement)
    try:
        return OnnxRuntimeBackend(optimised_graphs(bundle, precision, placement), True, *facts)
    except (OutputError, BackendError) as error:
        log.info("onnxruntime: the bundle's graphs are opened without optimised graphs: %s", error)
        backend = OnnxRuntimeBackend(bundle.graphs(precision), False, *facts)
        backend.device += f", no cache ({error})"
        return backend
