"""ONNX Runtime on the CPU: the default everywhere.

A session is not opened on the bundle's graphs but on what ONNX Runtime's optimiser makes of them for this processor, kept in
the cache (optimised.py): convolution weights already in blocked order, in a file that is memory-mapped and never copied. That takes
loading the ImageNet-64 network to 0.2 processor seconds and 0.1 GB of its own memory a direction; both map one file.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...errors import BackendError, OutputError
from ..bundle import Bundle
from ..install_hints import install_line
from ..log import log, timed
from ..resources import processors
from ..schedule import Move
from .base import Opened, first_line, graph_inputs

if TYPE_CHECKING:
    import onnxruntime


class OnnxRuntimeBackend:
    """Sessions of both directions, each opened at its first move. Threads may run one session at the same time."""

    name = "onnxruntime"

    def __init__(
        self, graphs: dict[str, Path], optimised: bool, sample_shape: tuple[int, int, int], num_classes: int | None, precision: str = "fp32"
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

    def play_move(self, x: np.ndarray, noise: np.ndarray | None, move: Move, labels: np.ndarray | None) -> np.ndarray:
        session = self._session(move.graph)
        try:
            return np.asarray(session.run(None, graph_inputs(x, noise, move, labels))[0])
        except Exception as error:  # inputs that a bundle's graphs do not take, or no memory for a batch
            raise BackendError(f"ONNX Runtime cannot play {move} at batch {len(x)}: {first_line(error)}") from error

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
    if importlib.util.find_spec("onnxruntime") is None:
        return f"onnxruntime is not installed; {install_line('run')}"
    if precision == "bf16":
        return "ONNX Runtime has no bfloat16 convolutions on a CPU; take --backend openvino"
    return None


def open(bundle: Bundle, precision: str) -> OnnxRuntimeBackend:
    """Open a bundle's graphs in their optimised form, or as they are where that cannot be had; `device` says why."""
    from .optimised import optimised_graphs

    model = bundle.manifest.model
    try:
        return OnnxRuntimeBackend(optimised_graphs(bundle, precision), True, model.sample_shape, model.num_classes, precision)
    except (OutputError, BackendError) as error:  # a cache that cannot be written; a graph that cannot be opened says so at its first move
        backend = OnnxRuntimeBackend(bundle.graphs(precision), False, model.sample_shape, model.num_classes, precision)
        backend.device += f", no cache ({error})"
        log.info("onnxruntime: the bundle's graphs are opened as they are: %s", error)
        return backend


def threads() -> int:
    """$BCM_EDGE_THREADS, else the processors this process may use. More threads than that halve the speed. Raises BackendError."""
    if given := os.environ.get("BCM_EDGE_THREADS"):
        if not given.isdecimal() or not int(given):
            raise BackendError(f"BCM_EDGE_THREADS is {given!r}; it is a number of threads from 1")
        return int(given)
    return processors()


def session_options() -> onnxruntime.SessionOptions:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads()
    options.log_severity_level = 4  # fatal: every error is raised as well, and warnings say that an optimised file fits this processor only
    return options


def open_serialised(model: bytes, folder: Path) -> onnxruntime.InferenceSession:
    """A session on a model in memory whose weights lie in files of a folder. Raises what ONNX Runtime raises."""
    import onnxruntime

    options = session_options()
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder.resolve()))
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def open_session(graph: Path, options: onnxruntime.SessionOptions) -> onnxruntime.InferenceSession:
    """A session on a graph. Raises BackendError."""
    import onnxruntime

    try:
        return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions share no base class of their own
        raise BackendError(f"ONNX Runtime {onnxruntime.__version__} cannot open {graph}: {first_line(error)}") from error


def open_optimised(graph: Path) -> onnxruntime.InferenceSession:
    """A session on a graph that was optimised before. Raises BackendError."""
    import onnxruntime

    options = session_options()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return open_session(graph, options)
