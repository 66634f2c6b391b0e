"""Whether the libraries that engines need are installed here and work together. Call `gpu.probe` before importing any of them."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import re
import sys
from contextlib import suppress

from ...errors import BackendError
from .gpu import Gpu
from .install_hints import Extra, install_line
from .jetpack import jetpack

OLDEST_CUDA_CORE = (1, 2)
OLDEST = (8, 6)  # of TensorRT: before it, no tensor is addressed by name


def missing_tensorrt(gpu: Gpu) -> str | None:
    """Why TensorRT is not there, and the line that fixes it for this GPU's driver; None if it is."""
    found = importlib.util.find_spec("tensorrt")
    if found is None or found.origin is None:  # a folder that happens to have the name is no TensorRT
        line = "sudo apt install python3-libnvinfer" if jetpack() else install_line(_extra(gpu))
        return f"tensorrt is not installed; {line}"
    return None


def missing_cuda_core(gpu: Gpu) -> str | None:
    """Why cuda-core cannot be used, and the line that fixes it for this GPU's driver; None if it can.

    It is imported: cuda-core and cuda-bindings are released apart, and versions that do not fit fail only then.
    """
    extra = _extra(gpu)
    if not (_is_installed("cuda.core") and _is_installed("cuda.bindings")):
        return f"cuda-core is not installed; {install_line(extra)}"
    if _numbers(version := _version("cuda-core")) < OLDEST_CUDA_CORE:
        oldest = ".".join(map(str, OLDEST_CUDA_CORE))
        return f"cuda-core {version} is too old, {oldest} or newer is needed; {install_line(extra, upgrade=True)}"
    try:
        importlib.import_module("cuda.core")
    except (ImportError, OSError, RuntimeError) as error:
        versions = " and ".join(f"{name} {_version(name)}" for name in ("cuda-core", "cuda-bindings"))
        return f"{versions} do not work together ({error}); {install_line(extra, upgrade=True)}"
    return None


def _is_installed(module: str) -> bool:
    with suppress(ModuleNotFoundError):  # no package `cuda` at all
        return importlib.util.find_spec(module) is not None
    return False


def _version(distribution: str) -> str:
    """As its metadata has it; "(unknown version)" where there is none, as in a source tree."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "(unknown version)"


def _numbers(version: str) -> tuple[int, ...]:
    """The first two numbers of a version; larger than any where it has none."""
    match = re.match(r"(\d+)\.(\d+)", version)
    return (int(match[1]), int(match[2])) if match else (sys.maxsize,)


def _extra(gpu: Gpu) -> Extra:
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
