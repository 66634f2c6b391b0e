"""Check that ONNX Runtime can compute on a GPU: its packages, and the libraries of CUDA that they need.

Call `gpu.probe` before. Without these checks ONNX Runtime computes on the CPU and prints a warning.

Two packages contain the module onnxruntime: onnxruntime, and onnxruntime-gpu with the providers for GPUs. The
one that is installed last overwrites files of the other.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.metadata
import importlib.util
import re
import shlex
from contextlib import suppress
from pathlib import Path
from types import ModuleType

from ...errors import BackendError
from ..wording import setting
from .gpu import Gpu
from .install_hints import requirements
from .installed import missing_cuda_core
from .jetpack import jetpack
from .shared_libraries import linked_libraries, load_libraries

# Names of execution providers.
CUDA = "CUDAExecutionProvider"
TENSORRT = "TensorrtExecutionProvider"
RTX = "NvTensorRTRTXExecutionProvider"

_CPU_PACKAGE, _GPU_PACKAGE = "onnxruntime", "onnxruntime-gpu"
# The libraries of each provider. TensorRT's calls functions of CUDA's.
_LIBRARIES = {
    CUDA: ("libonnxruntime_providers_cuda.so",),
    TENSORRT: ("libonnxruntime_providers_cuda.so", "libonnxruntime_providers_tensorrt.so"),
}
# Convolutions need cuDNN. Since version 1.28 it is loaded at the first convolution, so it is not linked.
_CUDNN = "libcudnn.so.9"

# What pip installs for a driver that supports CUDA 12 only: 1.26 is the last version for CUDA 12.
_FOR_CUDA_12 = ("onnxruntime-gpu[cuda,cudnn]>=1.23,<1.27", "cuda-core>=1.2", "cuda-bindings>=12.9,<13")

# The module with the plugin of RTX, and its package.
PLUGIN, _PLUGIN_PACKAGE = "onnxruntime_ep_nv_tensorrt_rtx", "onnxruntime-ep-nv-tensorrt-rtx-cu13"
_PLUGIN_FOR_CUDA_12 = "onnxruntime-ep-nv-tensorrt-rtx-cu12"
# The oldest version of ONNX Runtime for the plugin. In 1.24 a build for the CPU binds memory of a GPU without
# the number of its vendor, so the plugin may take it for another device.
OLDEST_FOR_PLUGIN = (1, 25)


def missing_onnxruntime_gpu(gpu: Gpu, provider: str) -> str | None:
    """Return why a provider of ONNX Runtime cannot use this GPU and what to do, or None if it can.

    provider: CUDA, TENSORRT or RTX.

    ONNX Runtime is imported, and the libraries that the provider needs are loaded into this process. ONNX
    Runtime does not find those that pip installed otherwise. The plugin of RTX is not registered.
    """
    if provider == RTX and not is_supported_by_rtx(gpu):
        return (
            f"TensorRT-RTX is for GPUs of compute capability 8.6, 8.9, and 12.0 or newer; {gpu.name} has "
            f"{gpu.capability}; use {setting('backend', 'onnxruntime-cuda')}"
        )
    try:
        if (reason := _two_packages(gpu, provider)) is None:
            module = _onnxruntime(gpu, provider)
            if provider == RTX:
                reason = _missing_plugin(gpu, module)
            else:
                reason = _missing_provider(gpu, provider, module)
        return reason or missing_cuda_core(gpu, _requirement(gpu, provider))
    except BackendError as error:
        return str(error)


def is_supported_by_rtx(gpu: Gpu) -> bool:
    """Whether TensorRT-RTX accepts a GPU. It has kernels for these compute capabilities only."""
    major, _, _ = gpu.capability.partition(".")
    return gpu.capability in ("8.6", "8.9") or int(major) >= 12


def tensorrt_library() -> str:
    """Return the version of the TensorRT library that ONNX Runtime uses, such as "10.13.3".

    Call `missing_onnxruntime_gpu` before, which loads the library. "" if the version is unknown.
    """
    module = importlib.import_module("onnxruntime")
    provider = Path(str(module.__file__)).parent / "capi" / _LIBRARIES[TENSORRT][1]
    for name in linked_libraries(provider):
        if name.startswith("libnvinfer.so."):
            with suppress(OSError, AttributeError):
                number = int(ctypes.CDLL(name).getInferLibVersion())  # 101303 for 10.13.3
                return f"{number // 10000}.{number // 100 % 100}.{number % 100}"
    return ""


def is_older(version: str, oldest: tuple[int, int]) -> bool:
    """Whether a version of ONNX Runtime, such as "1.31.1", is older than this one. False if it is unknown."""
    found = re.match(r"(\d+)\.(\d+)", version)
    return found is not None and (int(found[1]), int(found[2])) < oldest


def _two_packages(gpu: Gpu, provider: str) -> str | None:
    """Return why ONNX Runtime cannot be used if both of its packages are in one folder, or None."""
    spec = importlib.util.find_spec("onnxruntime")
    if spec is None or spec.origin is None:
        return None
    site = str(Path(spec.origin).parent.parent)
    versions = {
        name: distribution.version
        for name in (_CPU_PACKAGE, _GPU_PACKAGE)
        for distribution in importlib.metadata.distributions(name=name, path=[site])
    }
    if len(versions) < 2:
        return None
    if _is_jetpack_6():
        again = requirements("jetson6")
    else:
        again = _requirement_of_plugin(gpu, False) if provider == RTX else _requirement(gpu, provider)
    both = " and ".join(f"{name} {version}" for name, version in versions.items())
    return (
        f"{both} are both installed; each overwrites files of the other, because both contain the module "
        f"onnxruntime; pip uninstall -y {_CPU_PACKAGE} {_GPU_PACKAGE} && pip install {again}"
    )


def _onnxruntime(gpu: Gpu, provider: str) -> ModuleType:
    """Import ONNX Runtime. Raises BackendError if this fails."""
    if importlib.util.find_spec("onnxruntime") is None:
        package = _CPU_PACKAGE if provider == RTX else _GPU_PACKAGE
        raise BackendError(f"{package} is not installed; {_install(gpu, provider)}")
    try:
        return importlib.import_module("onnxruntime")
    except (ImportError, OSError, AttributeError) as error:
        again = f"pip install --force-reinstall {_requirement(gpu, provider)}"
        raise BackendError(f"onnxruntime cannot be imported: {error}; {again}") from error


def _missing_provider(gpu: Gpu, provider: str, module: ModuleType) -> str | None:
    """Return what the provider CUDA or TENSORRT needs and this machine does not have, or None."""
    version = module.__version__
    if provider not in module.get_available_providers():
        if CUDA in module.get_available_providers():
            return (
                f"this build of {_GPU_PACKAGE} {version} does not contain {provider}; "
                f"use {setting('backend', 'onnxruntime-cuda')}"
            )
        remove = "" if _is_jetpack_6() else f"pip uninstall -y {_CPU_PACKAGE} && "
        return (
            f"onnxruntime {version} is installed, which computes on the CPU only; "
            f"{remove}{_install(gpu, provider)}"
        )
    built = int(str(getattr(module, "cuda_version", "")).partition(".")[0] or 0)  # 0: unknown
    if built > _driver(gpu):
        return (
            f"{_GPU_PACKAGE} {version} is built for CUDA {built}, and the driver supports CUDA {gpu.cuda}; "
            f"{'' if _is_jetpack_6() else 'update the driver, or '}{_install(gpu, provider)}"
        )
    folder = Path(str(module.__file__)).parent / "capi"
    absent = load_libraries(_needed_libraries([folder / name for name in _LIBRARIES[provider]]))
    if not absent:
        load_libraries([f"libnvrtc.so.{built}"])  # cuDNN compiles some kernels with it, if it can
        return None
    return (
        f"{_GPU_PACKAGE} {version} needs {_enumerated(absent)}, which cannot be loaded; "
        f"pip install {_packages_of_libraries(gpu, absent, built, version)}"
    )


def _needed_libraries(providers: list[Path]) -> list[str]:
    """Return the libraries of CUDA, cuDNN and TensorRT that the libraries of providers need."""
    present = [library for library in providers if library.is_file()]
    linked = [name for library in present for name in linked_libraries(library)]
    names = [name for name in linked if name.startswith(("libcu", "libnv")) and name != "libcuda.so.1"]
    return list(dict.fromkeys([*names, _CUDNN])) if present else []


def _packages_of_libraries(gpu: Gpu, absent: list[str], cuda: int, version: str) -> str:
    """Return what pip has to install for missing libraries, as a shell reads it."""
    tensorrt = [name for name in absent if name.startswith("libnv") and "nvrtc" not in name]
    packages = []
    if len(tensorrt) < len(absent):
        exact = shlex.quote(f"{_GPU_PACKAGE}[cuda,cudnn]=={version}")
        packages.append(requirements("gpu") if cuda >= 13 <= _driver(gpu) else exact)
    if tensorrt:
        major = int(tensorrt[0].rpartition(".")[2])
        packages.append(shlex.quote(f"tensorrt-cu{cuda}>={major},<{major + 1}"))
    return " ".join(packages)


def _missing_plugin(gpu: Gpu, module: ModuleType) -> str | None:
    """Return what the plugin of RTX needs and this machine does not have, or None."""
    if is_older(module.__version__, OLDEST_FOR_PLUGIN):
        oldest = ".".join(map(str, OLDEST_FOR_PLUGIN))
        return (
            f"onnxruntime {module.__version__} is too old, TensorRT-RTX's plugin needs {oldest} or newer; "
            f"{_install(gpu, RTX, upgrade=True)}"
        )
    if importlib.util.find_spec(PLUGIN) is None:
        package = _PLUGIN_PACKAGE if _driver(gpu) >= 13 else _PLUGIN_FOR_CUDA_12
        return f"{package} is not installed; {_install(gpu, RTX)}"
    if _driver(gpu) < 13 and list(importlib.metadata.distributions(name=_PLUGIN_PACKAGE)):
        return (
            f"{_PLUGIN_PACKAGE} is built for CUDA 13, and the driver supports CUDA {gpu.cuda}; update the "
            f"driver, or run pip uninstall -y {_PLUGIN_PACKAGE} && pip install {_PLUGIN_FOR_CUDA_12}"
        )
    return None


def _install(gpu: Gpu, provider: str, upgrade: bool = False) -> str:
    """Return the command that installs what a provider needs, or on JetPack 6, what to use in its place."""
    if _is_jetpack_6():
        return (
            f"use {setting('backend', 'tensorrt')}: PyPI's onnxruntime-gpu for aarch64 needs CUDA 13 and "
            "Python 3.11, and JetPack 6 has CUDA 12 and Python 3.10"
        )
    return f"pip install {'--upgrade ' if upgrade else ''}{_requirement(gpu, provider)}"


def _requirement(gpu: Gpu, provider: str) -> str:
    """Return what pip has to install for a provider, as a shell reads it."""
    if _is_jetpack_6():
        return " ".join(map(shlex.quote, _FOR_CUDA_12[1:]))
    if provider == RTX:
        return _requirement_of_plugin(gpu, bool(list(importlib.metadata.distributions(name=_GPU_PACKAGE))))
    return requirements("gpu") if _driver(gpu) >= 13 else " ".join(map(shlex.quote, _FOR_CUDA_12))


def _requirement_of_plugin(gpu: Gpu, beside_gpu: bool) -> str:
    """Return what pip has to install for RTX.

    beside_gpu: whether onnxruntime-gpu stays installed, whose files the package onnxruntime would overwrite.
    """
    if _driver(gpu) >= 13:
        return _PLUGIN_PACKAGE if beside_gpu else requirements("rtx")
    runtime = [] if beside_gpu else [f"onnxruntime>={'.'.join(map(str, OLDEST_FOR_PLUGIN))}"]
    return " ".join(map(shlex.quote, [*runtime, _PLUGIN_FOR_CUDA_12, *_FOR_CUDA_12[1:]]))


def _is_jetpack_6() -> bool:
    release = jetpack()
    return release is not None and release.extra == "jetson6"


def _driver(gpu: Gpu) -> int:
    """Return the newest major version of CUDA that the driver supports."""
    return int(gpu.cuda.partition(".")[0])


def _enumerated(names: list[str]) -> str:
    """Return "a, b and c"."""
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else names[0]
