"""Whether the libraries that engines take are installed here. Call `gpu.probe` before importing any of them."""

from __future__ import annotations

import importlib
import importlib.util
from contextlib import suppress

from ...errors import BackendError
from ..jetpack import jetpack
from .gpu import Gpu

OLDEST = (8, 6)  # of TensorRT: before it, no tensor is addressed by name


def missing_tensorrt(gpu: Gpu) -> str | None:
    """Why TensorRT is not there, and the line that fixes it for this GPU's driver; None if it is."""
    found = importlib.util.find_spec("tensorrt")
    if found is None or found.origin is None:  # a folder that happens to have the name is no TensorRT
        line = "sudo apt install python3-libnvinfer" if jetpack() else f"pip install 'bcm-edge[{_extra(gpu)}]'"
        return f"tensorrt is not installed; {line}"
    return None


def missing_cuda_core(gpu: Gpu) -> str | None:
    """The same of cuda-core."""
    with suppress(ModuleNotFoundError):  # no package `cuda` at all
        if importlib.util.find_spec("cuda.core") and importlib.util.find_spec("cuda.bindings"):
            return None
    return f"cuda-core is not installed; pip install 'bcm-edge[{_extra(gpu)}]'"


def _extra(gpu: Gpu) -> str:
    """Of pyproject.toml: that of the JetPack here, or of the CUDA that the driver knows."""
    found = jetpack()
    if found and found.extra:
        return found.extra
    return "trt11" if int(gpu.cuda.partition(".")[0]) >= 13 else "trt10"


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
