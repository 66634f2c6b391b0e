"""The calls of the fakes of CUDA and TensorRT, in order, their memory, and faults that a test can set.

Memory is real and starts as NaN. Work on a stream is done only when the stream is synchronized. Code that
reads or frees too early, or that mixes up the order, therefore gets NaN, an error or wrong images.
"""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass, field

import numpy as np

ALIGNMENT = 256


def environment(name: str, default: str) -> str:
    """The environment variable FAKE_NAME, with which a test sets faults of a child process."""
    return os.environ.get(f"FAKE_{name}", default)


@dataclass
class Faults:
    """Faults that a test can set.

    memory: bytes of device memory; the environment variable FAKE_GPU_MEMORY sets it in a child process
    execute: names of engines that fail
    capture: how recording fails: "refused", or "invalidated" by the first engine
    launch: whether launching a graph fails
    stale_graph: whether a recording is replayed without its first move
    wrong_pixel: whether a replay changes one number
    recorded: an error that an engine records although it returns success
    pool: what fails in a memory pool: "create" or "allocate"
    kernel: what a kernel does: "refused" by the driver, or "wrong" numbers
    """

    memory: int = field(default_factory=lambda: int(environment("GPU_MEMORY", str(1 << 34))))
    execute: set[str] = field(default_factory=set)
    capture: str = ""
    launch: bool = False
    pool: str = ""
    kernel: str = ""
    recorded: str = ""
    wrong_pixel: bool = False
    stale_graph: bool = False


calls: list[str] = []  # "upload 1024", "execute forward 4", "launch", "sync", …
sessions: list[tuple[str, dict[str, str], dict[str, str]]] = []  # onnxruntime: provider, options, entries
devices: set[int] = set()  # numbers of the GPUs that were made current or got a memory pool
faults = Faults()
live: dict[int, np.ndarray] = {}  # address → allocated memory
pinned: set[int] = set()  # addresses of allocated memory on the host
allocated = 0  # bytes of allocated memory on the device
written = 0  # the last address that an engine wrote to


def reset() -> None:
    """Forget all calls, faults and memory."""
    global allocated
    calls.clear()
    sessions.clear()
    devices.clear()
    faults.__init__()
    live.clear()
    pinned.clear()
    allocated = 0


def allocate(size: int, on_device: bool) -> int:
    """Allocate memory that is filled with NaN, and return its address."""
    global allocated
    if on_device:
        if allocated + size > faults.memory:
            raise RuntimeError(
                "CUDA_ERROR_OUT_OF_MEMORY: "
                "The API call failed because it was unable to allocate enough memory"
            )
        allocated += size
    memory = np.full(size + ALIGNMENT, 0xFF, np.uint8)
    address = -(-memory.ctypes.data // ALIGNMENT) * ALIGNMENT
    live[address] = memory
    if not on_device:
        pinned.add(address)
    return address


def free(address: int, size: int, on_device: bool) -> None:
    """Free memory and fill it with NaN, which a later read would get."""
    global allocated
    live.pop(address)[:] = 0xFF
    pinned.discard(address)
    allocated -= size if on_device else 0


def array(address: int, shape: tuple[int, ...], dtype: type) -> np.ndarray:
    """The array at an address. Raises RuntimeError if not all of its memory is allocated."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    for start, memory in live.items():
        if start <= address and address + size <= memory.ctypes.data + len(memory):
            return np.frombuffer(memoryview((ctypes.c_byte * size).from_address(address)), dtype).reshape(
                shape
            )
    raise RuntimeError("CUDA_ERROR_ILLEGAL_ADDRESS: an illegal memory access was encountered")


def write(address: int, content: bytes) -> None:
    """Write bytes to allocated memory."""
    array(address, (len(content),), np.uint8)[:] = np.frombuffer(content, np.uint8)
