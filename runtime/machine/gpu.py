"""Which GPU is here, asked of the driver itself, before any object of TensorRT exists: TensorRT 8.6 crashes where there is none."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import BackendError, InputError

# CUdevice_attribute of cuda.h
_MAJOR, _MINOR, _INTEGRATED, _MULTIPROCESSORS = 75, 76, 18, 16

# how TensorRT, CUDA and Python say that memory did not suffice; the third is what TensorRT says when no kernel got the memory it asked for
_OUT_OF_MEMORY = (
    "out of memory",
    "outofmemory",
    "could not find any implementation",
    "insufficient memory",
    "memoryallocation",
    "bad_alloc",
    "memoryerror",
)


@dataclass(frozen=True)
class Gpu:
    """index: among those that CUDA_VISIBLE_DEVICES leaves; capability: compute capability, "8.7"; multiprocessors: how many, which tells
    boards of one name apart; memory: bytes in all; integrated: whether it shares the processor's memory, as on a Jetson; cuda: the
    newest CUDA that the driver knows, "12.6"."""

    index: int
    name: str
    capability: str
    multiprocessors: int
    memory: int
    integrated: bool
    cuda: str

    def __str__(self) -> str:
        return f"{self.name} (compute capability {self.capability}, {self.memory / 1e9:.1f} GB, driver for CUDA {self.cuda})"


def probe(index: int = 0) -> Gpu:
    """The GPU of this index. Raises BackendError where there is no driver, no GPU, or none of this index."""
    call = _driver()
    if (status := call("cuInit", 0)) != 0:
        raise BackendError(f"no NVIDIA GPU can be used here: the driver says {_error_name(call, status)}")
    count = _read(call, "cuDeviceGetCount", ctypes.c_int)
    if not 0 <= index < count:
        there = "there is none" if count == 0 else f"there is cuda:{', cuda:'.join(map(str, range(count)))}"
        raise BackendError(f"no GPU cuda:{index} here; {there}")
    device = _read(call, "cuDeviceGet", ctypes.c_int, index)
    name = ctypes.create_string_buffer(256)
    call("cuDeviceGetName", name, len(name), device)
    major, minor, integrated, multiprocessors = (
        _read(call, "cuDeviceGetAttribute", ctypes.c_int, attribute, device)
        for attribute in (_MAJOR, _MINOR, _INTEGRATED, _MULTIPROCESSORS)
    )
    version = _read(call, "cuDriverGetVersion", ctypes.c_int)
    memory = _read(call, "cuDeviceTotalMem_v2", ctypes.c_size_t, device)
    cuda = f"{version // 1000}.{version % 1000 // 10}"
    return Gpu(
        index, name.value.decode(), f"{major}.{minor}", multiprocessors, memory, bool(integrated), cuda
    )


def parse_device(text: str) -> int:
    """The index that "cuda:1", or "cuda", names. Raises InputError."""
    name, _, number = text.partition(":")
    if name != "cuda" or not (number.isdecimal() or text == "cuda"):
        raise InputError(f"{text!r} is no device; engines are built for cuda:0, cuda:1, …")
    return int(number or 0)


def make_current(index: int) -> None:
    """Make the GPU's primary context this thread's, which CUDA's other libraries then work on. Raises BackendError."""
    call = _driver()
    probe(index)
    device = _read(call, "cuDeviceGet", ctypes.c_int, index)
    context = _read(call, "cuDevicePrimaryCtxRetain", ctypes.c_void_p, device)
    if (status := call("cuCtxSetCurrent", ctypes.c_void_p(context))) != 0:
        raise BackendError(
            f"the GPU cuda:{index} cannot be used: the driver says {_error_name(call, status)}"
        )


def free_memory(gpu: Gpu) -> int | None:
    """Bytes that a new allocation on the GPU may take now; None where neither driver nor system tells."""
    if gpu.integrated:  # the driver counts what the system could reclaim as taken
        with suppress(OSError, ValueError, StopIteration):
            lines = Path("/proc/meminfo").read_text().splitlines()
            return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    with suppress(BackendError):
        make_current(gpu.index)
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        if _driver()("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total)) == 0:
            return free.value
    return None


def is_out_of_memory(text: str) -> bool:
    """Whether what TensorRT, CUDA or Python says means that memory did not suffice."""
    text = text.lower().replace("out_of_memory", "out of memory")
    return any(sign in text for sign in _OUT_OF_MEMORY)


def _driver() -> Callable[..., int]:
    """call(function, *arguments) → the driver's status. Raises BackendError where there is no driver."""
    name = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        library = ctypes.CDLL(name)
    except OSError:
        raise BackendError(f"no NVIDIA driver here ({name} cannot be loaded)") from None
    return lambda function, *arguments: int(getattr(library, function)(*arguments))


def _read(call: Callable[..., int], function: str, kind: type[Any], *arguments: object) -> Any:
    """What a driver function writes to its first argument."""
    value = kind()
    if (status := call(function, ctypes.byref(value), *arguments)) != 0:
        raise BackendError(f"the NVIDIA driver fails: {function} says {_error_name(call, status)}")
    return value.value


def _error_name(call: Callable[..., int], status: int) -> str:
    name = ctypes.c_char_p()
    call("cuGetErrorName", status, ctypes.byref(name))
    return name.value.decode() if name.value else f"error {status}"
