"""OpenVINO on the CPU: fast where the processor has int8 (VNNI) or bfloat16 (AMX) units, on the same .onnx files.

Precision is what the graph says: the hint is float32, so nothing is lowered beyond the typed graph, whose float32 islands (the time
embedding above all) stay exact. A whole network under OpenVINO's own bfloat16 hint strays twice as far. A half-precision graph would be
computed in float32 here without a word, so this backend does not take one.

Shapes are static, one compiled network per direction and batch size: a dynamic batch costs 11 to 41 %. Compiled networks are
kept in the cache (compiled.py). A request holds the inputs and outputs of one inference, so each thread takes one of its own for a move.
"""

from __future__ import annotations

import os
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import BackendError, OutputError
from ..machine import processor
from ..machine.cache_folder import cache_directory
from ..machine.resources import threads
from ..schedule import Move
from ..storage.bundle import Bundle
from ..wording import first_line
from .base import BackendInfo, Opened, graph_inputs
from .compiled import Compiled, Compiler

if TYPE_CHECKING:
    import openvino


INFO = BackendInfo("openvino", "play", "cpu", ("fp32", "bf16", "int8"), ("openvino",), "openvino")


class OpenVinoBackend:
    """Compiled networks, each made at the first move of its direction and batch size."""

    name = INFO.name

    def __init__(self, bundle: Bundle, precision: str) -> None:
        self.precision = precision
        self.sample_shape = bundle.manifest.model.sample_shape
        self.num_classes = bundle.manifest.model.num_classes
        folder, problem = _cache_folder()
        self.device = f"CPU, {threads()} threads" + (f", no cache ({problem})" if problem else "")
        compiler = Compiler(bundle, precision, compile_properties(), folder)
        self._networks: Opened[tuple[str, int], _Network] = Opened(
            lambda key: _Network(compiler.network(*key))
        )

    def play_move(
        self, x: np.ndarray, noise: np.ndarray | None, move: Move, labels: np.ndarray | None
    ) -> np.ndarray:
        network = self._networks.get((move.graph, len(x)))
        try:
            return network.play(graph_inputs(x, noise, move, labels))
        except RuntimeError as error:
            raise BackendError(
                f"OpenVINO cannot play {move} at batch {len(x)}: {first_line(error)}"
            ) from error

    def close(self) -> None:
        self._networks.close()


class _Network:
    """A compiled network and its idle requests: as many are made as threads play at the same time."""

    def __init__(self, compiled: Compiled) -> None:
        self._compiled = compiled
        self._idle: deque[openvino.InferRequest] = deque()  # its pop and append are safe between threads

    def play(self, inputs: dict[str, np.ndarray]) -> np.ndarray:
        """The first output, a new array. Raises RuntimeError; a request that failed is not used again."""
        try:
            request = self._idle.pop()
        except IndexError:
            request = self._compiled.network.create_infer_request()
        output = np.array(
            request.infer(inputs)[0]
        )  # a copy: the request's own array is overwritten by its next inference
        self._idle.append(request)
        return output


def unavailable(precision: str, bundle: Bundle | None = None) -> str | None:
    """Return why OpenVINO cannot play a precision here, or None if it can."""
    if reason := INFO.missing():
        return reason
    if precision == "fp16":
        return "OpenVINO computes float16 graphs in float32 on a CPU; use --backend onnxruntime or --precision fp32"
    return None


def preferred(precision: str) -> bool:
    """Whether OpenVINO is faster than ONNX Runtime here: int8 on matrix units (AMX), which ONNX Runtime does not use."""
    return precision == "int8" and "amx_int8" in processor.cpu_flags()


def open(bundle: Bundle, precision: str) -> OpenVinoBackend:
    return OpenVinoBackend(bundle, precision)


def compile_properties() -> dict[str, Any]:
    """How networks are compiled."""
    return {
        "INFERENCE_NUM_THREADS": threads(),
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY",
    }


def _cache_folder() -> tuple[Path | None, str]:
    """Where compiled networks are kept, or None and why they are compiled anew each time."""
    try:
        cache = cache_directory() / "openvino"
        cache.mkdir(parents=True, exist_ok=True)
    except (OSError, OutputError) as error:
        return None, f"{cache_directory()}: {error.strerror}" if isinstance(error, OSError) else str(error)
    if os.access(cache, os.W_OK) or any(cache.iterdir()):  # one that was filled before is used as it is
        return cache, ""
    return None, f"{cache}: cannot be written"
