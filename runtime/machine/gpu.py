"""Query the GPU of this machine from the driver, with ctypes.

No object of TensorRT may be created before: TensorRT 8.6 crashes on machines without a GPU.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from ...errors import BackendError, InputError
from ..wording import setting
from .resources import system_memory

# CUdevice_attribute of cuda.h
_MAJOR = 75
_MINOR = 76
_INTEGRATED = 18
_MULTIPROCESSORS = 16

FP8_CAPABILITY = (8, 9)  # the first compute capability with 8-bit floating-point units

# Parts of the messages of TensorRT, ONNX Runtime, CUDA and Python for too little memory, in lower case. The
# third is TensorRT's message if no kernel could get the memory that it needs.
_OUT_OF_MEMORY = (
    "out of memory",
    "outofmemory",
    "could not find any implementation",
    "insufficient memory",
    "failed to allocate memory",
    "alloc_failed",
    "allocation_failed",
    "memoryallocation",
    "bad_alloc",
    "memoryerror",
)


@dataclass(frozen=True)
class Gpu:
    """A GPU, as its driver describes it."""

    # The number among the GPUs that CUDA_VISIBLE_DEVICES makes visible.
    index: int
    name: str
    # Compute capability, for example "8.7".
    capability: str
    # The number of multiprocessors. Boards of the same name can differ in it.
    multiprocessors: int
    # Total memory in bytes.
    memory: int
    # Whether the GPU shares the memory of the processor, as on a Jetson.
    integrated: bool
    # The newest CUDA version that the driver supports, for example "12.6".
    cuda: str

    def __str__(self) -> str:
        memory = f"{self.memory / 1e9:.1f} GB"
        return f"{self.name} (compute capability {self.capability}, {memory}, driver for CUDA {self.cuda})"


def cannot_compute(gpu: Gpu, precision: str | None) -> str | None:
    """Return why a GPU has no units for a precision, or None if it has them."""
    major, minor = map(int, gpu.capability.split("."))
    if precision != "fp8" or (major, minor) >= FP8_CAPABILITY:
        return None
    return (
        f"fp8 needs a GPU of compute capability 8.9 or newer (Ada, Hopper, Blackwell, Thor), and {gpu.name} "
        f"has {gpu.capability}; use {setting('precision', 'int8-fp16')}"
    )


def probe(index: int = 0) -> Gpu:
    """Return the GPU with this index. Raises BackendError if there is no driver or no such GPU.

    It also disables TF32 in this process, before any library of CUDA is loaded.
    """
    call = _driver()
    if (status := call("cuInit", 0)) != 0:
        raise BackendError(f"no NVIDIA GPU can be used: the driver reports {_error_name(call, status)}")
    count = _read(call, "cuDeviceGetCount", ctypes.c_int)
    if not 0 <= index < count:
        names = ", ".join(f"cuda:{number}" for number in range(count))
        raise BackendError(f"no GPU cuda:{index} on this machine; available: {names or 'none'}")
    device = _read(call, "cuDeviceGet", ctypes.c_int, index)
    name = ctypes.create_string_buffer(256)
    call("cuDeviceGetName", name, len(name), device)
    major, minor, integrated, multiprocessors = (
        _read(call, "cuDeviceGetAttribute", ctypes.c_int, attribute, device)
        for attribute in (_MAJOR, _MINOR, _INTEGRATED, _MULTIPROCESSORS)
    )
    version = _read(call, "cuDriverGetVersion", ctypes.c_int)  # 12060 for CUDA 12.6
    disable_tf32()
    return Gpu(
        index=index,
        name=name.value.decode(),
        capability=f"{major}.{minor}",
        multiprocessors=multiprocessors,
        memory=_read(call, "cuDeviceTotalMem_v2", ctypes.c_size_t, device),
        integrated=bool(integrated),
        cuda=f"{version // 1000}.{version % 1000 // 10}",
    )


def disable_tf32() -> None:
    """Have the libraries of CUDA compute float32 in this process and its children with 24 bits, not in TF32.

    ONNX Runtime's providers for TensorRT have no option for that. TensorRT reads the variable once in a
    process and writes its value into every engine, and an engine cannot run in a process with another value.
    So it must be the same wherever this package builds or plays an engine.
    """
    os.environ["NVIDIA_TF32_OVERRIDE"] = "0"


def parse_device(text: str) -> int:
    """Return 1 for "cuda:1", and 0 for "cuda". Raises InputError."""
    name, _, number = text.partition(":")
    if name != "cuda" or not (number.isdecimal() or text == "cuda"):
        raise InputError(f"unknown device {text!r}; expected cuda:N, for example cuda:0")
    return int(number or 0)


def make_current(index: int) -> None:
    """Make the primary context of a GPU current in this thread. CUDA's other libraries then use this GPU.

    Raises BackendError.
    """
    call = _driver()
    probe(index)
    device = _read(call, "cuDeviceGet", ctypes.c_int, index)
    context = _read(call, "cuDevicePrimaryCtxRetain", ctypes.c_void_p, device)
    if (status := call("cuCtxSetCurrent", ctypes.c_void_p(context))) != 0:
        raise BackendError(f"GPU cuda:{index} cannot be used: the driver reports {_error_name(call, status)}")


def free_memory(gpu: Gpu) -> int | None:
    """Return how many bytes can be allocated on the GPU now, or None if it is unknown."""
    if gpu.integrated:
        # The driver reports memory as used that the system could reclaim.
        memory = system_memory()
        if memory is not None:
            return memory
    with suppress(BackendError):
        make_current(gpu.index)
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        if _driver()("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total)) == 0:
            return free.value
    return None


def is_out_of_memory(text: str) -> bool:
    """Return whether a message of TensorRT, ONNX Runtime, CUDA or Python reports too little memory."""
    text = text.lower().replace("out_of_memory", "out of memory")
    return any(sign in text for sign in _OUT_OF_MEMORY)


def _driver() -> Callable[..., int]:
    """Return call(function, *arguments) → status of the driver. Raises BackendError if there is no driver."""
    name = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        library = ctypes.CDLL(name)
    except OSError:
        raise BackendError(f"no NVIDIA driver on this machine ({name} cannot be loaded)") from None
    return lambda function, *arguments: int(getattr(library, function)(*arguments))


def _read(call: Callable[..., int], function: str, kind: type[Any], *arguments: object) -> Any:
    """Return the value that a function of the driver writes to its first argument."""
    value = kind()
    if (status := call(function, ctypes.byref(value), *arguments)) != 0:
        raise BackendError(f"NVIDIA driver error: {function} returned {_error_name(call, status)}")
    return value.value


def _error_name(call: Callable[..., int], status: int) -> str:
    name = ctypes.c_char_p()
    call("cuGetErrorName", status, ctypes.byref(name))
    return name.value.decode() if name.value else f"error {status}"
