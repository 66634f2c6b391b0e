"""Whether the libraries that engines take are installed here. Call `gpu.probe` before importing any of them."""

from __future__ import annotations

import importlib
import importlib.util
from contextlib import suppress

from ...errors import BackendError

OLDEST = (8, 6)  # of TensorRT: before it, no tensor is addressed by name


def missing_tensorrt() -> str | None:
    """Why TensorRT is not there, and the line that fixes it; None if it is."""
    found = importlib.util.find_spec("tensorrt")
    if found is None or found.origin is None:  # a folder that happens to have the name is no TensorRT
        return "tensorrt is not installed; pip install 'bcm-edge[trt11]' (on a Jetson: sudo apt install python3-libnvinfer)"
    return None


def missing_cuda_core() -> str | None:
    """The same of cuda-core."""
    with suppress(ModuleNotFoundError):  # no package `cuda` at all
        if importlib.util.find_spec("cuda.core"):
            return None
    return "cuda-core is not installed; pip install 'bcm-edge[trt11]' (on a Jetson 'bcm-edge[jetson6]' or 'bcm-edge[jetson7]')"


def tensorrt_version() -> str:
    """Of the TensorRT that is imported for it. Raises BackendError if it cannot be, or is too old."""
    try:
        version = str(importlib.import_module("tensorrt").__version__)
        numbers = tuple(int(number) for number in version.split(".")[:2])
    except (ImportError, OSError, AttributeError, ValueError) as error:
        raise BackendError(f"tensorrt cannot be imported: {error}") from error
    if numbers < OLDEST:
        raise BackendError(f"TensorRT {version} is too old; this needs 8.6 (JetPack 6.0) or newer")
    return version
