"""A fake of CUDA in torch: tensors on the device "cuda" are in the memory of the CPU.

Only the parts for hardware are replaced: the device of tensors, streams (those of the fake cuda-core),
events, pinned memory, the properties of the GPU, and the GPU kernels of torch.compile. torch.compile traces
as usual and then runs the traced operators with torch.

Operators that write to memory (in place, or with out=) on a stream of cuda-core are added to that stream, as
an engine is, and become part of its CUDA graphs. Their results are not visible before the stream is
synchronized.
"""

from __future__ import annotations

import contextlib
import ctypes
import time
from collections.abc import Callable, Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import gpu_record as record
import numpy as np
from cuda.core import Stream, all_streams, stream_of

_current: list[Stream] = []  # the streams of `with torch.cuda.stream(...)` blocks


def install(torch: ModuleType) -> None:
    """Give torch a GPU."""
    cuda = torch.cuda
    cuda.is_available = lambda: True
    cuda.device_count = lambda: 1
    cuda.current_device = lambda: 0
    cuda.get_device_properties = lambda device=None: _properties()
    cuda.get_device_name = lambda device=None: _properties().name
    cuda.get_device_capability = lambda device=None: (_properties().major, _properties().minor)
    cuda.synchronize = lambda device=None: _synchronize()
    cuda.empty_cache = lambda: None
    cuda.get_rng_state = lambda device="cuda": torch.get_rng_state()
    cuda.set_rng_state = lambda new_state, device="cuda": torch.set_rng_state(new_state)
    cuda.is_current_stream_capturing = lambda: bool(_current) and _current[-1].recording is not None
    cuda.ExternalStream = lambda handle, device=None: stream_of(handle)
    cuda.stream = _stream
    cuda.Event = Event
    torch.version.cuda = "13.0"
    torch.compile = _compile(torch, torch.compile)
    _mode(torch)().__enter__()  # for this thread, until it ends


class Event:
    """The time at which the work before it on a stream is done."""

    def __init__(self, enable_timing: bool = False) -> None:
        self._timed, self._stream, self._seconds = enable_timing, None, 0.0

    def record(self, stream: Stream | None = None) -> None:
        self._stream = stream
        if stream is None:
            self._now()
        else:
            stream.put(self._now)

    def synchronize(self) -> None:
        if self._stream is not None:
            self._stream.sync()

    def elapsed_time(self, end: Event) -> float:
        assert self._timed and end._timed, "these events do not measure time"
        assert end._seconds >= self._seconds > 0, "an event has not happened yet"
        return 1e3 * (end._seconds - self._seconds)

    def _now(self) -> None:
        self._seconds = time.perf_counter()


@contextlib.contextmanager
def _stream(stream: Stream) -> Iterator[None]:
    _current.append(stream)
    try:
        yield
    finally:
        _current.pop()


def _synchronize() -> None:
    for stream in all_streams():
        if stream.recording is not None:
            stream.invalidated = True
            raise RuntimeError("CUDA error: operation not permitted when stream is capturing")
        stream.sync()


def _properties() -> SimpleNamespace:
    """The properties of the GPU of the stub driver."""
    driver = ctypes.CDLL("libcuda.so.1")
    name = ctypes.create_string_buffer(256)
    driver.cuDeviceGetName(name, len(name), 0)
    memory = ctypes.c_size_t()
    driver.cuDeviceTotalMem_v2(ctypes.byref(memory), 0)
    major, minor, integrated, count = (ctypes.c_int() for _ in range(4))
    for value, attribute in ((major, 75), (minor, 76), (integrated, 18), (count, 16)):
        driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, 0)
    return SimpleNamespace(
        name=name.value.decode(),
        major=major.value,
        minor=minor.value,
        total_memory=memory.value,
        is_integrated=integrated.value,
        multi_processor_count=count.value,
    )


def _compile(torch: ModuleType, original: Callable[..., Any]) -> Callable[..., Any]:
    """torch.compile without GPU kernels. The mode of the fake is off while the compiled function runs."""

    def compile(model: Any = None, *, mode: str | None = None, **options: Any) -> Any:
        traced = original(model, backend="eager", **options)

        def play(*arguments: Any, **keywords: Any) -> Any:
            with torch.overrides._pop_mode_temporarily():
                return traced(*arguments, **keywords)

        return play

    return compile


def _mode(torch: ModuleType) -> Any:
    """The class of a mode that sees every call of a torch function."""

    class OnTheProcessor(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            name = getattr(func, "__name__", "")
            kwargs = {key: _place(torch, value) for key, value in (kwargs or {}).items()}
            if name == "pin_memory":
                return args[0].clone()
            if name == "to" and any(_is_cuda(torch, value) for value in args[1:]):
                args = tuple(_place(torch, value) for value in args)
                kwargs["copy"] = True
            if name == "as_tensor" and hasattr(args[0], "__cuda_array_interface__"):
                return _tensor_at(torch, args[0].__cuda_array_interface__)
            writes = "out" in kwargs or (name.endswith("_") and not name.endswith("__"))
            if _current and writes:
                _current[-1].put(lambda: func(*args, **kwargs))
                return kwargs.get("out", args[0])
            return func(*args, **kwargs)

    return OnTheProcessor


def _is_cuda(torch: ModuleType, value: object) -> bool:
    return (isinstance(value, str) and value.startswith("cuda")) or (
        isinstance(value, torch.device) and value.type == "cuda"
    )


def _place(torch: ModuleType, value: Any) -> Any:
    return "cpu" if _is_cuda(torch, value) else value


def _tensor_at(torch: ModuleType, interface: dict[str, Any]) -> Any:
    """The tensor at an address of allocated memory."""
    address, read_only = interface["data"]
    assert not read_only and interface.get("strides") is None
    return torch.from_numpy(record.array(address, interface["shape"], np.dtype(interface["typestr"]).type))
