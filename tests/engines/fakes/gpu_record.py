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
    """What to break.

    memory: bytes that the device has
    execute: engines that refuse to run
    capture: "refused", or "invalidated" by the first engine
    launch: whether graphs cannot be launched
    stale_graph: whether a recording is replayed without its first move
    wrong_pixel: whether a replay changes one number
    recorded: an error that an engine records while it returns success
    pool: a memory pool fails to "create" or to "allocate"
    """

    memory: int = 1 << 34
    execute: set[str] = field(default_factory=set)
    capture: str = ""
    launch: bool = False
    pool: str = ""
    recorded: str = ""
    wrong_pixel: bool = False
    stale_graph: bool = False


calls: list[str] = []  # "upload 1024", "execute forward 4", "launch", "sync", …
faults = Faults()
live: dict[int, np.ndarray] = {}  # address → memory that is allocated now
pinned: set[int] = set()  # addresses of live memory that is on the host
allocated = 0  # bytes on the device
written = 0  # the address that an engine wrote to last


def reset() -> None:
    global allocated
    calls.clear()
    faults.__init__()
    live.clear()
    pinned.clear()
    allocated = 0


def allocate(size: int, on_device: bool) -> int:
    """The address of new memory full of NaN."""
    global allocated
    if on_device:
        if allocated + size > faults.memory:
            raise RuntimeError(
                "CUDA_ERROR_OUT_OF_MEMORY: The API call failed because it was unable to allocate enough memory"
            )
        allocated += size
    memory = np.full(size + ALIGNMENT, 0xFF, np.uint8)
    address = -(-memory.ctypes.data // ALIGNMENT) * ALIGNMENT
    live[address] = memory
    if not on_device:
        pinned.add(address)
    return address


def free(address: int, size: int, on_device: bool) -> None:
    global allocated
    live.pop(address)[:] = 0xFF  # whoever still reads it gets NaN
    pinned.discard(address)
    allocated -= size if on_device else 0


def array(address: int, shape: tuple[int, ...], dtype: type) -> np.ndarray:
    """The array at an address. Raises RuntimeError if that memory is not allocated, or not all of it."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    for start, memory in live.items():
        if start <= address and address + size <= memory.ctypes.data + len(memory):
            return np.frombuffer(memoryview((ctypes.c_byte * size).from_address(address)), dtype).reshape(
                shape
            )
    raise RuntimeError("CUDA_ERROR_ILLEGAL_ADDRESS: an illegal memory access was encountered")


def write(address: int, content: bytes) -> None:
    """Write bytes to memory that is allocated."""
    array(address, (len(content),), np.uint8)[:] = np.frombuffer(content, np.uint8)


def environment(name: str, default: str) -> str:
    """How a test tells a child process what to break: FAKE_NAME."""
    return os.environ.get(f"FAKE_{name}", default)
