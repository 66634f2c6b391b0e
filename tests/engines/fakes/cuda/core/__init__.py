"""A fake of the names of cuda-core that this project uses.

tests/tensorrt/test_contract.py compares their signatures with the real ones.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace

import gpu_record as record
import numpy as np
import ptx

_streams: dict[int, Stream] = {}


class Buffer:
    """Memory on the device or, pinned, on the host."""

    def __init__(self, address: int, size: int, on_device: bool, owner: object = None) -> None:
        self.handle, self.size, self._on_device, self._owner = address, size, on_device, owner

    @staticmethod
    def from_handle(
        ptr: int, size: int, mr: object = None, owner: object = None, *, stream: object = None
    ) -> Buffer:
        if isinstance(mr, MemoryResource):
            assert isinstance(stream, Stream), "freed on the default stream"
            return Buffer(ptr, size, mr.is_device_accessible, mr)
        assert isinstance(owner, Buffer)
        assert owner.handle <= ptr and ptr + size <= owner.handle + owner.size
        return Buffer(ptr, size, owner._on_device, owner)

    def copy_to(self, dst: Buffer | None = None, *, stream: Stream, options: object = None) -> Buffer:
        assert dst is not None and dst.size == self.size
        record.calls.append(f"{'download' if self._on_device else 'upload'} {self.size}")
        source, target = self.handle, dst.handle
        stream.put(lambda: _copy(source, target, self.size))
        return dst

    def copy_from(self, src: Buffer, *, stream: Stream, options: object = None) -> None:
        src.copy_to(self, stream=stream)

    def fill(self, value: int | bytes, *, stream: Stream) -> None:
        assert self._on_device and (isinstance(value, int) or self.size % len(value) == 0)
        record.calls.append(f"fill {self.size}")
        pattern = bytes([value]) if isinstance(value, int) else value
        address, content = self.handle, pattern * (self.size // len(pattern))
        stream.put(lambda: record.write(address, content))

    def close(self, stream: Stream | None = None) -> None:
        if isinstance(self._owner, MemoryResource):
            assert stream is not None
            self._owner.deallocate(self.handle, self.size, stream=stream)
        elif self._owner is None:
            assert stream is None or not stream.queue, "freed before its work was done"
            record.free(self.handle, self.size, self._on_device)


class MemoryResource:
    """The base class of classes that allocate memory."""

    def allocate(self, size: int, *, stream: Stream) -> Buffer: ...
    def deallocate(self, ptr: int, size: int, *, stream: Stream) -> None: ...

    @property
    def is_device_accessible(self) -> bool:
        raise NotImplementedError  # a derived class defines it


class LegacyPinnedMemoryResource:
    """Allocates pinned memory on the host."""

    def allocate(self, size: int, *, stream: Stream | None = None) -> Buffer:
        record.calls.append(f"pin {size}")
        refuse_while_recording()
        return Buffer(record.allocate(size, False), size, False)


class Stream:
    """A queue of work that is done when the stream is synchronized."""

    def __init__(self) -> None:
        self.handle = len(_streams) + 1
        self.queue: list[Callable[[], None]] = []
        self.recording: list[Callable[[], None]] | None = None
        self.invalidated = False
        self.is_closed = False
        _streams[self.handle] = self

    def put(self, work: Callable[[], None]) -> None:
        """Add work: to the queue or, while the stream is recorded, to the recording."""
        (self.queue if self.recording is None else self.recording).append(work)

    def sync(self) -> None:
        if self.recording is not None:
            raise RuntimeError("CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED")
        record.calls.append("sync")
        queue, self.queue = self.queue, []
        for work in queue:
            work()

    def create_graph_builder(self) -> GraphBuilder:
        return GraphBuilder(self)

    def close(self) -> None:
        assert not self.queue
        self.is_closed = True
        del _streams[self.handle]


def stream_of(handle: int) -> Stream:
    """The open stream with this handle."""
    return _streams[handle]


def all_streams() -> list[Stream]:
    """All open streams."""
    return list(_streams.values())


def refuse_while_recording() -> None:
    """Raise RuntimeError if a stream is being recorded, as CUDA does for an allocation."""
    if any(stream.recording is not None for stream in _streams.values()):
        raise RuntimeError("CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED: an allocation while a stream is captured")


class GraphBuilder:
    """Records the work of a stream."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self._building = False
        self._work: list[Callable[[], None]] = []

    def begin_building(self, mode: str | None = "relaxed") -> GraphBuilder:
        if record.faults.capture == "refused":
            raise RuntimeError(
                "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED: operation not permitted when stream is capturing"
            )
        assert mode == "thread_local"
        record.calls.append("begin recording")
        self._building, self.stream.recording = True, []
        return self

    @property
    def is_building(self) -> bool:
        if self._building and self.stream.invalidated:
            raise RuntimeError(
                "Build process encountered an error and has been invalidated. "
                "Build process must now be ended."
            )
        return self._building

    def end_building(self) -> GraphBuilder:
        assert self.is_building and self.stream.recording is not None
        record.calls.append("end recording")
        self._work, self._building, self.stream.recording = self.stream.recording, False, None
        return self

    def complete(self, options: object = None) -> Graph:
        return Graph(self._work)

    def close(self) -> None:
        is_invalid = self.stream.invalidated
        self._building, self.stream.recording, self.stream.invalidated = False, None, False
        if is_invalid:
            raise RuntimeError("CUDA_ERROR_STREAM_CAPTURE_INVALIDATED")


class Graph:
    """A recording that can be launched."""

    def __init__(self, work: list[Callable[[], None]]) -> None:
        self._work = work

    def launch(self, stream: Stream) -> None:
        if record.faults.launch:
            raise RuntimeError("CUDA_ERROR_LAUNCH_FAILED: unspecified launch failure")
        record.calls.append("launch")
        stream.put(self._replay)

    def _replay(self) -> None:
        for work in self._work[record.faults.stale_graph :]:
            work()
        if record.faults.wrong_pixel:
            last = record.array(record.written, (1,), "f4")
            last += 0.1

    def close(self) -> None:
        record.calls.append("close graph")
        self._work = []


class Kernel:
    """A kernel in PTX. The module ptx executes it."""

    def __init__(self, code: ptx.Kernel) -> None:
        self.code = code


class ObjectCode:
    """A module in PTX."""

    def __init__(self, module: bytes) -> None:
        self._module = module

    @staticmethod
    def from_ptx(
        module: bytes, *, name: str = "", symbol_mapping: dict[str, str] | None = None
    ) -> ObjectCode:
        return ObjectCode(module)

    def get_kernel(self, name: str) -> Kernel:
        if record.faults.kernel == "refused":
            raise RuntimeError("CUDA_ERROR_UNSUPPORTED_PTX_VERSION: the PTX was compiled for a newer toolkit")
        return Kernel(_kernels(self._module)[name])


@functools.cache
def _kernels(module: bytes) -> dict[str, ptx.Kernel]:
    return ptx.kernels(module.decode())


@dataclass
class LaunchConfig:
    """The threads of a launch."""

    grid: tuple[int, int]
    block: int


def launch(stream: Stream, config: LaunchConfig, kernel: Kernel, *kernel_args: object) -> None:
    """Put a kernel on a stream. An int is a pointer; other arguments are numpy scalars."""
    arguments = [np.uint64(a).tobytes() if type(a) is int else a.tobytes() for a in kernel_args]
    if record.faults.kernel == "wrong":
        arguments[2] = np.uint64(1).tobytes()  # another draw
    record.calls.append(f"draw {config.grid[1]}")

    def memory(address: int, size: int) -> np.ndarray:
        return record.array(address, (size,), np.uint8)

    stream.put(lambda: ptx.Launch(kernel.code, config.grid, config.block, arguments, memory).run())


class DeviceProperties:
    """Properties of the device. FAKE_POOLS=0: it has no memory pools."""

    memory_pools_supported = record.environment("POOLS", "1") == "1"


class Device:
    """A GPU."""

    def __init__(self, device_id: int | None = None) -> None:
        self.device_id = device_id
        self.properties = DeviceProperties()

    def set_current(self, ctx: object = None) -> None:
        record.calls.append("set current")
        record.devices.add(self.device_id or 0)

    def create_stream(self, obj: object = None, options: object = None) -> Stream:
        return Stream()


class DeviceMemoryResourceOptions:
    """Options of a memory pool."""


class DeviceMemoryResource(MemoryResource):
    """A memory pool on the device."""

    def __init__(self, device_id: int, options: DeviceMemoryResourceOptions | None = None) -> None:
        if record.faults.pool == "create":
            raise RuntimeError("CUDA_ERROR_NOT_SUPPORTED: operation not supported")
        record.calls.append("pool")
        record.devices.add(device_id)
        self._allocated: list[tuple[int, weakref.ref[np.ndarray]]] = []

    def allocate(self, size: int, *, stream: Stream) -> Buffer:
        if record.faults.pool == "allocate":
            raise RuntimeError("CUDA_ERROR_NOT_SUPPORTED: operation not supported")
        refuse_while_recording()
        record.calls.append(f"allocate {size}")
        buffer = Buffer(record.allocate(size, True), size, True)
        self._allocated.append((buffer.handle, weakref.ref(record.live[buffer.handle])))
        return buffer

    def _held(self) -> list[np.ndarray]:
        """The memory of the pool that is not free. Other allocations may get the address of free memory."""
        return [record.live[at] for at, memory in self._allocated if memory() is record.live.get(at, self)]

    @property
    def attributes(self) -> SimpleNamespace:
        return SimpleNamespace(used_mem_current=sum(map(len, self._held())))

    def close(self) -> None:
        assert not self._held(), "a pool is closed before its memory was freed"
        record.calls.append("close pool")


def _copy(source: int, target: int, size: int) -> None:
    record.array(target, (size,), "u1")[:] = record.array(source, (size,), "u1")
