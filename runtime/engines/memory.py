"""GPU memory for schedules: where it is allocated, and blocks of arrays that the host and the GPU exchange. Over cuda-core.

A block lies on the device. Its copy in pinned host memory is allocated when it is first used, so a block that nobody reads or writes from
the host has none. A GPU that shares the processor's memory (a Jetson) can work on pinned memory itself: such a block is `mapped`, and
nothing is copied. The GPU does not cache that memory, so only inputs and outputs are mapped.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

import numpy as np
from cuda.bindings import driver
from cuda.core import (
    Buffer,
    Device,
    DeviceMemoryResource,
    DeviceMemoryResourceOptions,
    LegacyPinnedMemoryResource,
    MemoryResource,
    Stream,
)

if TYPE_CHECKING:
    from cuda.core.graph import GraphBuilder
    from cuda.core.typing import DevicePointerType

ALIGNMENT = 256  # bytes: what TensorRT asks of addresses

Layout = dict[str, tuple[tuple[int, ...], type]]  # name → (shape, dtype) of an array


class PlainMemory(MemoryResource):
    """Device memory allocated with cuMemAlloc, one call per buffer, in the current context."""

    def __init__(self, device_id: int) -> None:
        self._device_id = device_id

    def allocate(self, size: int, *, stream: Stream | GraphBuilder) -> Buffer:
        """Raises RuntimeError with the driver's error name."""
        status, address = driver.cuMemAlloc(size)
        if status != driver.CUresult.CUDA_SUCCESS:
            raise RuntimeError(f"{status.name}: cuMemAlloc of {size} bytes failed")
        return Buffer.from_handle(int(address), size, mr=self, stream=stream)

    def deallocate(self, ptr: DevicePointerType, size: int, *, stream: Stream | GraphBuilder) -> None:
        assert isinstance(stream, Stream)  # nothing is freed while a graph is recorded
        stream.sync()
        (status,) = driver.cuMemFree(ptr)
        if status != driver.CUresult.CUDA_SUCCESS:
            raise RuntimeError(f"{status.name}: cuMemFree failed")

    @property
    def is_device_accessible(self) -> bool:
        return True

    @property
    def is_host_accessible(self) -> bool:
        return False

    @property
    def device_id(self) -> int:
        return self._device_id


class DeviceMemory:
    """Device memory from a pool of our own, which returns freed memory to the system; CUDA's default pool keeps it.

    Where the GPU has no pools, or where creating one or its first allocation fails (some integrated GPUs), memory is allocated plainly.
    """

    def __init__(self, device: Device) -> None:
        self._plain = PlainMemory(device.device_id)
        self._pool: DeviceMemoryResource | None = None
        self._is_proven = False  # whether the pool has allocated something
        if device.properties.memory_pools_supported:
            try:
                self._pool = DeviceMemoryResource(device.device_id, DeviceMemoryResourceOptions())
            except (
                Exception
            ):  # cuda-core's errors share no base class; plain allocation says what is wrong if it fails too
                self._pool = None

    def allocate(self, size: int, stream: Stream) -> Buffer:
        """A buffer of `size` bytes, allocated in the order of the stream. Raises what cuda-core raises."""
        if self._pool is None:
            return self._plain.allocate(size, stream=stream)
        try:
            buffer = self._pool.allocate(size, stream=stream)
        except Exception:
            if self._is_proven:
                raise
            self.close()
            return self._plain.allocate(size, stream=stream)
        self._is_proven = True
        return buffer

    def close(self) -> None:
        """Return the pool's memory to the system. Every buffer must have been closed."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None


class Block:
    """Named arrays in one allocation.

    Fill `arrays[name]` and upload; or have the GPU write to `address(name)`, download, synchronise and read `arrays[name]`.
    """

    def __init__(self, mapped: bool, memory: DeviceMemory, stream: Stream, layout: Layout) -> None:
        self._stream, self._layout = stream, layout
        self._spans: dict[str, tuple[int, int]] = {}  # name → (first byte, byte after the last)
        size = 0
        for name, (shape, dtype) in layout.items():
            start = -(-size // ALIGNMENT) * ALIGNMENT
            size = start + int(np.prod(shape)) * np.dtype(dtype).itemsize
            self._spans[name] = (start, size)
        self._size = max(size, 4)  # a schedule of one move has no states between moves
        self._host: Buffer | None = None
        self._arrays: dict[str, np.ndarray] = {}
        self._device: Buffer | None = None if mapped else memory.allocate(self._size, stream)

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays in pinned host memory, which is allocated now if it was not before."""
        if self._host is None:
            host = LegacyPinnedMemoryResource().allocate(self._size)
            content = memoryview((ctypes.c_byte * self._size).from_address(int(host.handle)))
            self._arrays = {
                name: np.frombuffer(content, dtype, int(np.prod(shape)), self._spans[name][0]).reshape(shape)
                for name, (shape, dtype) in self._layout.items()
            }
            self._host = host
        return self._arrays

    def address(self, name: str) -> int:
        """The address at which the GPU finds an array."""
        return int(self._buffer().handle) + self._spans[name][0]

    def upload(self) -> None:
        """Copy the whole block to the GPU, in the order of the stream."""
        if self._device is not None:
            self._device.copy_from(self._host_buffer(), stream=self._stream)

    def download(self, first: str, last: str) -> None:
        """Copy the arrays from `first` to `last` to the host, in the order of the stream; they are there once it is synchronised."""
        if self._device is not None:
            start, end = self._spans[first][0], self._spans[last][1]
            target = _part(self._host_buffer(), start, end)
            _part(self._device, start, end).copy_to(target, stream=self._stream)

    def fill(self, name: str, value: float) -> None:
        """Fill a float32 array on the device with one value, in the order of the stream. The block must not be mapped."""
        assert self._device is not None
        _part(self._device, *self._spans[name]).fill(np.float32(value).tobytes(), stream=self._stream)

    def erase(self) -> None:
        """Overwrite every array that the GPU sees with bytes that are NaN to a float. A mapped block must not be in use."""
        if self._device is not None:
            self._device.fill(0xFF, stream=self._stream)
        else:
            for array in self.arrays.values():
                array.view(np.uint8)[...] = 0xFF

    def drop_host(self) -> None:
        """Free the pinned host memory of a block that is not mapped. No copy may be under way, and no array in use."""
        if self._device is not None and self._host is not None:
            self._arrays = {}
            self._host.close(self._stream)
            self._host = None

    def close(self) -> None:
        """Free all memory. Nothing may be under way that uses it."""
        self._arrays = {}
        for buffer in (self._device, self._host):
            if buffer is not None:
                buffer.close(self._stream)

    def _buffer(self) -> Buffer:
        return self._host_buffer() if self._device is None else self._device

    def _host_buffer(self) -> Buffer:
        assert self.arrays is not None and self._host is not None
        return self._host


def _part(buffer: Buffer, start: int, end: int) -> Buffer:
    return Buffer.from_handle(int(buffer.handle) + start, end - start, owner=buffer)
