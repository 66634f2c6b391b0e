"""What the stand-ins for CUDA and TensorRT did, in order, and what they are told to break.

Memory is real and starts as NaN. Work put on a stream is done when the stream is synchronised and not before, so whoever reads too early,
frees too early or mixes up an order gets NaN, an error, or another picture.
"""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass, field

import numpy as np

ALIGNMENT = 256


@dataclass
class Faults:
    """What to break. memory: bytes that the device has; execute: engines that refuse to run; stale_graph: replay a recording without its
    first move; wrong_pixel: have a replay change one number; capture: "refused", or "invalidated" by the first engine; recorded: an error
    that an engine records while it says that it ran."""

    memory: int = 1 << 34
    execute: set[str] = field(default_factory=set)
    capture: str = ""
    recorded: str = ""
    wrong_pixel: bool = False
    stale_graph: bool = False


calls: list[str] = []  # "upload 1024", "execute forward 4", "launch", "sync", …
faults = Faults()
live: dict[int, np.ndarray] = {}  # address → memory that is allocated now
allocated = 0  # bytes on the device
written = 0  # the address that an engine wrote to last


def reset() -> None:
    global allocated
    calls.clear()
    faults.__init__()
    live.clear()
    allocated = 0


def allocate(size: int, on_device: bool) -> int:
    """The address of new memory full of NaN."""
    global allocated
    if on_device:
        if allocated + size > faults.memory:
            raise RuntimeError("CUDA_ERROR_OUT_OF_MEMORY: The API call failed because it was unable to allocate enough memory")
        allocated += size
    memory = np.full(size + ALIGNMENT, 0xFF, np.uint8)
    address = -(-memory.ctypes.data // ALIGNMENT) * ALIGNMENT
    live[address] = memory
    return address


def free(address: int, size: int, on_device: bool) -> None:
    global allocated
    live.pop(address)[:] = 0xFF  # whoever still reads it gets NaN
    allocated -= size if on_device else 0


def array(address: int, shape: tuple[int, ...], dtype: type) -> np.ndarray:
    """The array at an address. Raises RuntimeError if that memory is not allocated, or not all of it."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    for start, memory in live.items():
        if start <= address and address + size <= memory.ctypes.data + len(memory):
            return np.frombuffer(memoryview((ctypes.c_byte * size).from_address(address)), dtype).reshape(shape)
    raise RuntimeError("CUDA_ERROR_ILLEGAL_ADDRESS: an illegal memory access was encountered")


def environment(name: str, default: str) -> str:
    """How a test tells a child process what to break: FAKE_NAME."""
    return os.environ.get(f"FAKE_{name}", default)
