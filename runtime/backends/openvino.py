"""OpenVINO on the CPU: fast where the processor has int8 (VNNI) or bfloat16 (AMX) units, on the same .onnx files.

Precision is what the graph says: the hint is float32, so nothing is lowered beyond the typed graph, whose float32 islands (the time
embedding above all) stay exact. A whole network under OpenVINO's own bfloat16 hint strays twice as far. A half-precision graph would be
computed in float32 here without a word, so this backend does not take one.

Shapes are static, one compiled network per direction and batch size: a dynamic batch costs 11 to 41 %. Compiled networks are
kept in the cache.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import BackendError
from ..bundle import Bundle
from ..cache import cache_directory
from ..schedule import Move
from .base import first_line, graph_inputs
from .onnxruntime import threads

if TYPE_CHECKING:
    import openvino


class OpenVinoBackend:
    """Compiled networks, each made at the first move of its direction and batch size."""

    name = "openvino"

    def __init__(self, bundle: Bundle, precision: str) -> None:
        import openvino

        self.precision = precision
        self.sample_shape = bundle.manifest.model.sample_shape
        self.num_classes = bundle.manifest.model.num_classes
        self.device = f"CPU, {threads()} threads"
        self._graphs = bundle.graphs(precision)
        self._core = openvino.Core()
        self._requests: dict[tuple[str, int], openvino.InferRequest] = {}

    def play_move(self, x: np.ndarray, noise: np.ndarray | None, move: Move, labels: np.ndarray | None) -> np.ndarray:
        request = self._request(move.graph, len(x))
        try:
            return np.array(request.infer(graph_inputs(x, noise, move, labels))[0])
        except RuntimeError as error:
            raise BackendError(f"OpenVINO cannot play {move} at batch {len(x)}: {first_line(error)}") from error

    def close(self) -> None:
        self._requests.clear()

    def _request(self, direction: str, batch: int) -> openvino.InferRequest:
        key = direction, batch
        if key not in self._requests:
            try:
                model = self._core.read_model(self._graphs[direction])
                model.reshape({port: [batch, *list(port.partial_shape)[1:]] for port in model.inputs})
                self._requests[key] = self._core.compile_model(model, "CPU", _cached_properties()).create_infer_request()
            except RuntimeError as error:
                raise BackendError(f"OpenVINO cannot open {self._graphs[direction]}: {first_line(error)}") from error
        return self._requests[key]


def unavailable(precision: str, bundle: Bundle | None = None) -> str | None:
    if importlib.util.find_spec("openvino") is None:
        return "openvino is not installed; pip install 'bcm-edge[openvino]'"
    if precision == "fp16":
        return "OpenVINO computes a half-precision graph in float32 on a CPU; take --backend onnxruntime, or --precision fp32"
    return None


def open(bundle: Bundle, precision: str) -> OpenVinoBackend:
    return OpenVinoBackend(bundle, precision)


def compile_properties() -> dict[str, Any]:
    """How networks are compiled, apart from the cache."""
    return {"INFERENCE_NUM_THREADS": threads(), "INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}


def _cached_properties() -> dict[str, Any]:
    properties = compile_properties()
    cache = cache_directory() / "openvino"
    with contextlib.suppress(OSError):  # a cache that cannot be written: compiled anew each time
        cache.mkdir(parents=True, exist_ok=True)
        if os.access(cache, os.W_OK):
            properties["CACHE_DIR"] = str(cache)
    return properties
