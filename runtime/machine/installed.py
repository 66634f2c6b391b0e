"""Check that the libraries that engines need are installed and fit together.

Call `gpu.probe` before importing any of them.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import re
import sys
from contextlib import suppress

from ...errors import BackendError
from .gpu import Gpu
from .install_hints import Extra, install_line, requirements
from .jetpack import jetpack

OLDEST_CUDA_CORE = (1, 2)
OLDEST = (8, 6)  # version of TensorRT; earlier versions cannot address tensors by name


def missing_tensorrt(gpu: Gpu) -> str | None:
    """Return how to install TensorRT for this GPU if it is missing, or None if it is installed."""
    spec = importlib.util.find_spec("tensorrt")
    if spec is None or spec.origin is None:  # without origin: some folder with the name tensorrt
        return f"tensorrt is not installed; {tensorrt_line(gpu)}"
    return None


def tensorrt_line(gpu: Gpu, again: bool = False) -> str:
    """Return the command that installs TensorRT for this GPU. again: replace an installation that fails."""
    if jetpack():
        return f"sudo apt install {'--reinstall ' if again else ''}python3-libnvinfer"
    return install_line(_extra(gpu), upgrade=again)


def missing_cuda_core(gpu: Gpu, requirement: str = "") -> str | None:
    """Return why cuda-core cannot be used and how to install it for this GPU, or None if it can be used.

    requirement: what pip has to install, as a shell reads it; by default the extra for TensorRT.

    cuda-core is imported: cuda-core and cuda-bindings are released separately, and versions that do not fit
    together fail only on import.
    """
    requirement = requirement or requirements(_extra(gpu))
    upgrade = f"pip install --upgrade {requirement}"
    if not (_is_installed("cuda.core") and _is_installed("cuda.bindings")):
        return f"cuda-core is not installed; pip install {requirement}"
    version = _version("cuda-core")
    if _numbers(version) < OLDEST_CUDA_CORE:
        oldest = ".".join(map(str, OLDEST_CUDA_CORE))
        return f"cuda-core {version} is too old, {oldest} or newer is needed; {upgrade}"
    try:
        importlib.import_module("cuda.core")
    except (ImportError, OSError, RuntimeError) as error:
        versions = f"cuda-core {version} and cuda-bindings {_version('cuda-bindings')}"
        return f"{versions} do not work together ({error}); {upgrade}"
    return None


def tensorrt_version() -> str:
    """Import TensorRT and return its version. Raises BackendError if it cannot be imported or is too old."""
    try:
        version = str(importlib.import_module("tensorrt").__version__)
        numbers = tuple(int(number) for number in version.split(".")[:2])
    except (ImportError, OSError, AttributeError, ValueError) as error:
        raise BackendError(f"tensorrt cannot be imported: {error}") from error
    if numbers < OLDEST:
        raise BackendError(f"TensorRT {version} is too old; 8.6 (JetPack 6.0) or newer is needed")
    return version


def _is_installed(module: str) -> bool:
    with suppress(ModuleNotFoundError):  # the package `cuda` is missing
        return importlib.util.find_spec(module) is not None
    return False


def _version(distribution: str) -> str:
    """Return the version in the metadata, or "(unknown version)" if there is none, as in a source tree."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "(unknown version)"


def _numbers(version: str) -> tuple[int, ...]:
    """Return the first two numbers of a version; if it has none, a number larger than any."""
    match = re.match(r"(\d+)\.(\d+)", version)
    return (int(match[1]), int(match[2])) if match else (sys.maxsize,)


def _extra(gpu: Gpu) -> Extra:
    """Return the extra of pyproject.toml for this JetPack or, on other machines, for this driver."""
    release = jetpack()
    if release and release.extra:
        return release.extra
    return "trt11" if int(gpu.cuda.partition(".")[0]) >= 13 else "trt10"
