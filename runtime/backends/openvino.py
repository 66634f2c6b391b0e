"""OpenVINO on the CPU. It is fast if the processor has int8 (VNNI) or bfloat16 (AMX) units.

Precision. The types of the graph determine the precision. The precision hint is float32, so OpenVINO converts
nothing to fewer bits, and the parts that are float32 in a bfloat16 graph, above all the time embedding,
remain exact. With OpenVINO's own bfloat16 hint the error of the network is twice as large. Float16 graphs are
not accepted, because OpenVINO computes them in float32 without a notice.

Shapes. Each network is compiled for one direction and one batch size: a dynamic batch is 11 to 41 % slower.
Compiled networks are cached (compiled.py).

Threads. A request contains the inputs and outputs of one inference, so each thread needs its own request
during a move.
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
from ..machine.placement import ANYWHERE, Placement
from ..schedule import Move
from ..storage.bundle import Bundle
from ..wording import counted, first_line, setting
from .base import BackendInfo, Opened, for_gpus, graph_inputs
from .compiled import Compiled, Compiler

if TYPE_CHECKING:
    import openvino


INFO = BackendInfo("openvino", "CPU", "play", "cpu", ("fp32", "bf16", "int8"), ("openvino",), "openvino")


class OpenVinoBackend:
    """Compiled networks. Each is created at the first move of its direction and batch size."""

    name = INFO.name

    def __init__(self, bundle: Bundle, precision: str, placement: Placement = ANYWHERE) -> None:
        self.precision = precision
        self.sample_shape = bundle.manifest.model.sample_shape
        self.num_classes = bundle.manifest.model.num_classes
        self.device = f"CPU, {counted(placement.cpu_threads, 'thread')}"
        folder, problem = _cache_folder()
        if problem:
            self.device += f", no cache ({problem})"
        compiler = Compiler(bundle, precision, compile_properties(placement), folder)

        def compiled_network(key: tuple[str, int]) -> _Network:
            direction, batch = key
            return _Network(compiler.network(direction, batch))

        self._networks: Opened[tuple[str, int], _Network] = Opened(compiled_network)

    def play_move(
        self, x: np.ndarray, noise: np.ndarray | None, move: Move, labels: np.ndarray | None
    ) -> np.ndarray:
        """Compute the move on the network of its direction and batch size."""
        network = self._networks.get((move.graph, len(x)))
        try:
            return network.play(graph_inputs(x, noise, move, labels))
        except RuntimeError as error:
            raise BackendError(
                f"OpenVINO cannot play {move} at batch {len(x)}: {first_line(error)}"
            ) from error

    def close(self) -> None:
        """Free the networks. Later moves raise BackendError."""
        self._networks.close()


class _Network:
    """A compiled network and its idle requests. There are as many requests as threads that play at once."""

    def __init__(self, compiled: Compiled) -> None:
        self._compiled = compiled
        self._idle: deque[openvino.InferRequest] = deque()  # pop and append of a deque are safe for threads

    def play(self, inputs: dict[str, np.ndarray]) -> np.ndarray:
        """Return the first output, a new array. Raises RuntimeError; a request that failed is not reused."""
        try:
            request = self._idle.pop()
        except IndexError:
            request = self._compiled.network.create_infer_request()
        output = np.array(request.infer(inputs)[0])  # a copy: the next inference overwrites the original
        self._idle.append(request)
        return output


def unavailable(precision: str, bundle: Bundle | None = None, placement: Placement = ANYWHERE) -> str | None:
    """Return why OpenVINO cannot play a precision here, or None if it can."""
    if reason := INFO.missing() or for_gpus(precision):
        return reason
    if precision == "fp16":
        return (
            "OpenVINO computes float16 graphs in float32 on a CPU; "
            f"use {setting('backend', 'onnxruntime')} or {setting('precision', 'fp32')}"
        )
    return None


def preferred(precision: str) -> bool:
    """Whether OpenVINO is faster than ONNX Runtime on this processor.

    It is for int8 on a processor with matrix units (AMX), which ONNX Runtime does not use.
    """
    return precision == "int8" and "amx_int8" in processor.cpu_flags()


def open(bundle: Bundle, precision: str, placement: Placement = ANYWHERE) -> OpenVinoBackend:
    """Open a bundle. Graphs are compiled, or read from the cache, at their first move."""
    return OpenVinoBackend(bundle, precision, placement)


def compile_properties(placement: Placement = ANYWHERE) -> dict[str, Any]:
    """Return the properties with which OpenVINO compiles networks."""
    return {
        "INFERENCE_NUM_THREADS": placement.cpu_threads,
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY",
    }


def _cache_folder() -> tuple[Path | None, str]:
    """Return (the folder of the cache, ""), or (None, the reason why there is no cache)."""
    try:
        cache = cache_directory() / "openvino"
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return None, f"{cache_directory()}: {error.strerror}"
    except OutputError as error:
        return None, str(error)
    if os.access(cache, os.W_OK) or any(cache.iterdir()):  # entries of a read-only cache are still used
        return cache, ""
    return None, f"{cache}: cannot be written"
