"""A fake of the IOBinding of a session on a GPU."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

import gpu_record as record
import numpy as np
from onnxruntime_values import ON_GPU, Memory, dtype_of, on_device


@dataclass(frozen=True)
class Place:
    """A tensor at an address of the device. owner: keeps its memory."""

    dtype: Any
    shape: tuple[int, ...]
    address: int
    owner: object = None

    @property
    def array(self) -> np.ndarray:
        """The tensor. Raises RuntimeError if not all of its memory is allocated on the device."""
        return record.array(self.address, self.shape, self.dtype)


def binding_class(IOBinding: type, DeviceValue: type) -> type:
    """The class of bindings of sessions on a GPU.

    Inputs on the host are copied to the device when they are bound, as in the real one.
    """

    class Binding(IOBinding):
        def __init__(self, session: Any) -> None:
            super().__init__(session)
            self._input_names = [each.name for each in session.get_inputs()]
            self._output_names = [each.name for each in session.get_outputs()]
            self._places: dict[str, Place] = {}
            # output → its place, or the device on which each run allocates it
            self._results: dict[str, Place | str] = {}
            self._values: list[Any] = []

        def bind_cpu_input(self, name: str, arr_on_cpu: np.ndarray) -> None:
            if name not in self._input_names:
                raise RuntimeError(f"Failed to find NodeArg with name: {name} in the def list")
            self._copy(name, np.ascontiguousarray(arr_on_cpu))

        def bind_input(self, name, device_type, device_id, element_type, shape, buffer_ptr) -> None:
            self._check_name(name)
            shape, dtype = tuple(shape), dtype_of(element_type)
            if device_type.lower() in ON_GPU:
                self._places[name] = Place(dtype, shape, buffer_ptr)
            else:
                size = int(np.prod(shape)) * np.dtype(dtype).itemsize
                content = (ctypes.c_char * size).from_address(buffer_ptr)
                self._copy(name, np.frombuffer(content, dtype).reshape(shape))

        def bind_ortvalue_input(self, name: str, ortvalue: Any) -> None:
            self._check_name(name)
            if isinstance(ortvalue, DeviceValue):
                self._places[name] = _place(ortvalue)
            else:
                self._copy(name, ortvalue.numpy())

        def bind_output(
            self, name, device_type="cpu", device_id=0, element_type=None, shape=None, buffer_ptr=None
        ) -> None:
            if buffer_ptr is None:
                self._results[name] = device_type.lower()
                return
            if element_type is None or shape is None:
                raise ValueError(
                    "`element_type` and `shape` are to be provided if pre-allocated memory is provided"
                )
            if device_type.lower() not in ON_GPU:
                raise NotImplementedError("the fake writes outputs with a given address only on the device")
            self._results[name] = Place(dtype_of(element_type), tuple(shape), buffer_ptr)

        def bind_ortvalue_output(self, name: str, ortvalue: Any) -> None:
            if not isinstance(ortvalue, DeviceValue):
                raise NotImplementedError("the fake writes given outputs only on the device")
            self._results[name] = _place(ortvalue)

        def synchronize_inputs(self) -> None:
            """Wait for the copies of inputs, which have ended."""

        def synchronize_outputs(self) -> None:
            """Wait for the copies of outputs, which have ended."""

        def get_outputs(self) -> list[Any]:
            return list(self._values)

        def copy_outputs_to_cpu(self) -> list[np.ndarray]:
            return [value.numpy().copy() for value in self._values]

        def clear_binding_inputs(self) -> None:
            self._places.clear()

        def clear_binding_outputs(self) -> None:
            self._results.clear()

        def _check_name(self, name: str) -> None:
            if name not in self._input_names:
                raise RuntimeError(
                    f"Error when binding input: Failed to find input name in the mapping: {name}"
                )

        def _copy(self, name: str, array: np.ndarray) -> None:
            address, memory = on_device(array)
            self._places[name] = Place(array.dtype.type, array.shape, address, memory)

    return Binding


def _place(value: Any) -> Place:
    return Place(value._view.dtype.type, value._view.shape, value.data_ptr(), value)


def new_place(dtype: Any, shape: tuple[int, ...]) -> Place:
    """Allocate a tensor on the device."""
    memory = Memory(int(np.prod(shape)) * np.dtype(dtype).itemsize)
    return Place(dtype, shape, memory.address, memory)
