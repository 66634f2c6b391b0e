"""GPU memory for schedules, and blocks of arrays that the host and the GPU exchange. It uses cuda-core.

A block is on the device. Its copy in pinned host memory is allocated at its first use, so a block that the
host neither reads nor writes has none.

A GPU that shares the memory of the processor (a Jetson) can use pinned memory directly. Such a block is
`mapped`, and nothing is copied. The GPU does not cache this memory, so only inputs and outputs are mapped.
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

ALIGNMENT = 256  # TensorRT requires addresses that are multiples of this number of bytes

# The arrays of a block: name → (shape, dtype).
Layout = dict[str, tuple[tuple[int, ...], type]]


class PlainMemory(MemoryResource):
    """Device memory allocated with cuMemAlloc, one call per buffer, in the current context."""

    def __init__(self, device_id: int) -> None:
        self._device_id = device_id

    def allocate(self, size: int, *, stream: Stream | GraphBuilder) -> Buffer:
        """Return a buffer of `size` bytes. Raises RuntimeError with the name of the driver's error."""
        status, address = driver.cuMemAlloc(size)
        if status != driver.CUresult.CUDA_SUCCESS:
            raise RuntimeError(f"{status.name}: cuMemAlloc of {size} bytes failed")
        return Buffer.from_handle(int(address), size, mr=self, stream=stream)

    def deallocate(self, ptr: DevicePointerType, size: int, *, stream: Stream | GraphBuilder) -> None:
        """Free a buffer when the work on the stream has ended. Raises RuntimeError."""
        assert isinstance(stream, Stream)  # nothing is freed while a graph is recorded
        stream.sync()
        (status,) = driver.cuMemFree(ptr)
        if status != driver.CUresult.CUDA_SUCCESS:
            raise RuntimeError(f"{status.name}: cuMemFree failed")

    @property
    def is_device_accessible(self) -> bool:
        """Whether the GPU can use the memory."""
        return True

    @property
    def is_host_accessible(self) -> bool:
        """Whether the processor can use the memory."""
        return False

    @property
    def device_id(self) -> int:
        """The number of the GPU."""
        return self._device_id


class DeviceMemory:
    """Device memory from a separate pool. Unlike CUDA's default pool, it returns freed memory to the system.

    Without a pool, memory is allocated with cuMemAlloc. This is the case if the GPU does not support pools,
    or if the pool or its first allocation fails, as on some integrated GPUs.
    """

    def __init__(self, device: Device) -> None:
        self._plain = PlainMemory(device.device_id)
        self._pool: DeviceMemoryResource | None = None
        self._pool_works = False  # whether the pool has allocated memory
        if device.properties.memory_pools_supported:
            try:
                self._pool = DeviceMemoryResource(device.device_id, DeviceMemoryResourceOptions())
            except Exception:  # the errors of cuda-core have no common base class
                self._pool = None

    def allocate(self, size: int, stream: Stream) -> Buffer:
        """Return a buffer of `size` bytes, allocated in stream order. Raises the exceptions of cuda-core."""
        if self._pool is None:
            return self._plain.allocate(size, stream=stream)
        try:
            buffer = self._pool.allocate(size, stream=stream)
        except Exception:
            if self._pool_works:
                raise
            self.close()
            return self._plain.allocate(size, stream=stream)
        self._pool_works = True
        return buffer

    def close(self) -> None:
        """Return the memory of the pool to the system. Every buffer must be closed."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None


class Block:
    """Named arrays on the device, in one allocation.

    To send arrays to the GPU, fill `arrays[name]` and call `upload`. To read arrays that the GPU wrote to
    `address(name)`, call `download`, synchronise the stream, and read `arrays[name]`.
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
        """The arrays in pinned host memory, which is allocated at the first use."""
        if self._host is None:
            host = LegacyPinnedMemoryResource().allocate(self._size)
            content = memoryview((ctypes.c_byte * self._size).from_address(int(host.handle)))
            for name, (shape, dtype) in self._layout.items():
                start, _ = self._spans[name]
                values = np.frombuffer(content, dtype, int(np.prod(shape)), start)
                self._arrays[name] = values.reshape(shape)
            self._host = host
        return self._arrays

    def address(self, name: str) -> int:
        """Return the address of an array for the GPU."""
        return int(self._buffer().handle) + self._spans[name][0]

    def upload(self) -> None:
        """Copy the whole block to the GPU, in stream order."""
        if self._device is not None:
            self._device.copy_from(self._host_buffer(), stream=self._stream)

    def download(self, first: str, last: str) -> None:
        """Copy the arrays from `first` to `last` to the host, in stream order.

        Synchronise the stream before you read them.
        """
        if self._device is not None:
            start, end = self._spans[first][0], self._spans[last][1]
            target = _part(self._host_buffer(), start, end)
            _part(self._device, start, end).copy_to(target, stream=self._stream)

    def fill(self, name: str, value: float) -> None:
        """Fill a float32 array on the device with a value, in stream order. The block must not be mapped."""
        assert self._device is not None
        _part(self._device, *self._spans[name]).fill(np.float32(value).tobytes(), stream=self._stream)

    def erase(self) -> None:
        """Overwrite all arrays that the GPU uses with the byte 0xFF, so that floats are NaN.

        No work may use a mapped block.
        """
        if self._device is not None:
            self._device.fill(0xFF, stream=self._stream)
        else:
            for array in self.arrays.values():
                array.view(np.uint8)[...] = 0xFF

    def drop_host(self) -> None:
        """Free the pinned host memory of a block that is not mapped.

        No copy may be running, and no array may be in use.
        """
        if self._device is not None and self._host is not None:
            self._arrays = {}
            self._host.close(self._stream)
            self._host = None

    def close(self) -> None:
        """Free all memory. No work may use it."""
        self._arrays = {}
        for buffer in (self._device, self._host):
            if buffer is not None:
                buffer.close(self._stream)

    def _buffer(self) -> Buffer:
        return self._host_buffer() if self._device is None else self._device

    def _host_buffer(self) -> Buffer:
        assert self.arrays is not None and self._host is not None
        return self._host


def fill_up(target: np.ndarray, values: np.ndarray) -> None:
    """Write values to the first rows of target, and repeat them in the other rows."""
    target[: len(values)] = values
    missing = len(target) - len(values)
    if missing:
        target[len(values) :] = values[np.arange(missing) % len(values)]


def _part(buffer: Buffer, start: int, end: int) -> Buffer:
    """Return the bytes from start to end of a buffer, without a copy."""
    return Buffer.from_handle(int(buffer.handle) + start, end - start, owner=buffer)
