"""Blocks of memory that the host and the GPU both see, over cuda-core.

A block exists twice, pinned on the host and on the device, and is copied on a stream. A GPU that shares the processor's memory (a Jetson)
can work on the pinned one itself: then it is `mapped`, and nothing is copied. The GPU goes past its cache to such memory, so only what goes
in and comes out is mapped.
"""

from __future__ import annotations

import ctypes

import numpy as np
from cuda.core import Buffer, Device, DeviceMemoryResource, LegacyPinnedMemoryResource, Stream

ALIGNMENT = 256  # bytes: what TensorRT asks of addresses

Layout = dict[str, tuple[tuple[int, ...], type]]  # name → (shape, dtype) of an array


class Block:
    """Arrays by name, one after the other.

    Fill `arrays[name]` and upload; or have the GPU write to `address(name)`, download, synchronise and read.
    """

    def __init__(self, mapped: bool, memory: Device | DeviceMemoryResource, stream: Stream, layout: Layout) -> None:
        self._stream = stream
        self._spans: dict[str, tuple[int, int]] = {}  # name → (first byte, byte after the last)
        size = 0
        for name, (shape, dtype) in layout.items():
            start = -(-size // ALIGNMENT) * ALIGNMENT
            size = start + int(np.prod(shape)) * np.dtype(dtype).itemsize
            self._spans[name] = (start, size)
        size = max(size, 1)  # a schedule of one move has no states between
        self._host = LegacyPinnedMemoryResource().allocate(size)
        self._device: Buffer | None = None if mapped else memory.allocate(size, stream=stream)
        content = (ctypes.c_byte * size).from_address(int(self._host.handle))
        self.arrays = {
            name: np.frombuffer(memoryview(content), dtype, int(np.prod(shape)), self._spans[name][0]).reshape(shape)
            for name, (shape, dtype) in layout.items()
        }

    def address(self, name: str) -> int:
        """Where the GPU finds an array."""
        return int((self._host if self._device is None else self._device).handle) + self._spans[name][0]

    def upload(self) -> None:
        """Bring the whole block to the GPU, in the order of the stream."""
        if self._device is not None:
            self._device.copy_from(self._host, stream=self._stream)

    def erase(self) -> None:
        """Overwrite every array, here and there, with what is NaN to a float."""
        for array in self.arrays.values():
            array.view(np.uint8)[...] = 0xFF
        self.upload()

    def download(self, first: str, last: str) -> None:
        """Bring the arrays from `first` to `last` to the host, in the order of the stream; they are there once it is synchronised."""
        if self._device is not None:
            start, end = self._spans[first][0], self._spans[last][1]
            self._part(self._device, start, end).copy_to(self._part(self._host, start, end), stream=self._stream)

    def close(self) -> None:
        """Free it. Nothing may be under way that uses it."""
        self.arrays.clear()
        if self._device is not None:
            self._device.close(self._stream)
        self._host.close(self._stream)

    def _part(self, buffer: Buffer, start: int, end: int) -> Buffer:
        return Buffer.from_handle(int(buffer.handle) + start, end - start, owner=buffer)
