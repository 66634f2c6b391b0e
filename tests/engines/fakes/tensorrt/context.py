"""Execution contexts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import gpu_record as record
import numpy as np
from cuda.core import refuse_while_recording, stream_of

from .enums import ARRAY_TYPES, DataType, ErrorCodeTRT

if TYPE_CHECKING:
    from .engine import ICudaEngine


class IExecutionContext:
    """Runs an engine: puts its work on a stream."""

    def __init__(self, engine: ICudaEngine, profile: int | None) -> None:
        self._engine, self._profile = engine, profile
        self._addresses: dict[str, int] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._scratch = self._scratch_size = 0
        self._is_new = True
        self._recording: object = None  # the recording that it is part of

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        """Select a profile, which forgets the shapes of the inputs."""
        refuse_while_recording()
        record.calls.append(f"profile {profile_index} of {self._engine.name}")
        if not 0 <= profile_index < self._engine.num_optimization_profiles:
            return False
        self._profile = profile_index
        self._shapes.clear()
        return True

    def set_device_memory(self, memory: int, size: int) -> None:
        assert self._profile is not None and memory % 256 == 0
        assert size >= self._engine.get_device_memory_size_for_profile_v2(self._profile)
        self._scratch, self._scratch_size = memory, size

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        if self._profile is None:
            return False
        smallest, _, largest = self._engine.plan["profiles"][self._profile][name]
        self._shapes[name] = tuple(shape)
        return all(low <= n <= high for low, n, high in zip(smallest, shape, largest, strict=True))

    def infer_shapes(self) -> list[str]:
        return [name for name, *_ in self._engine.plan["inputs"] if name not in self._shapes]

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self._addresses[name] = memory
        return memory % 256 == 0

    def execute_async_v3(self, stream_handle: int) -> bool:
        name = self._engine.name
        batch = next(iter(self._shapes.values()))[0]
        record.calls.append(f"execute {name} {batch}")
        addresses, shapes = dict(self._addresses), dict(self._shapes)
        image = next(shape for shape in shapes.values() if len(shape) == 4)

        def work() -> None:
            # The engine may write to all of its scratch memory.
            record.array(self._scratch, (self._scratch_size,), np.uint8)[:] = 0xFF
            inputs = {
                tensor: record.array(addresses[tensor], shapes[tensor], ARRAY_TYPES[DataType(kind)]).copy()
                for tensor, _, kind in self._engine.plan["inputs"]
            }
            results = self._engine.run(inputs)
            for (tensor, shape, kind), value in zip(self._engine.plan["outputs"], results, strict=True):
                full_shape = image if len(shape) == 4 else (batch,)
                record.array(addresses[tensor], full_shape, ARRAY_TYPES[DataType(kind)])[:] = value
                record.written = addresses[tensor]

        stream = stream_of(stream_handle)
        if stream.recording is not None:
            assert not self._is_new, "the first run of a context is recorded"
            assert self._recording in (None, stream.recording), "a context is recorded in two CUDA graphs"
            self._recording = stream.recording
        self._is_new = False
        stream.invalidated = stream.recording is not None and record.faults.capture == "invalidated"
        if name in record.faults.execute or stream.invalidated:
            return False
        stream.put(work)
        if record.faults.recorded:
            self._engine.recorder.report_error(ErrorCodeTRT.INTERNAL_ERROR, record.faults.recorded)
        return True
