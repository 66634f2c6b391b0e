"""Memory of the fake GPU that onnxruntime holds, and OrtValues in it."""

from __future__ import annotations

import weakref
from typing import Any

import gpu_record as record
import numpy as np

NUMPY = {  # the types of onnxruntime, as numbers of ONNX and as text
    1: np.float32,
    2: np.uint8,
    6: np.int32,
    7: np.int64,
    10: np.float16,
    11: np.float64,
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(uint8)": np.uint8,
    "tensor(double)": np.float64,
}
ON_GPU = ("cuda", "gpu")


class Memory:
    """Memory on the device that is freed with this object, and never while it is used."""

    def __init__(self, size: int) -> None:
        try:
            self.address = record.allocate(max(size, 1), True)
        except RuntimeError:
            raise RuntimeError(
                "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : /onnxruntime_src/onnxruntime/core/framework/"
                "bfc_arena.cc:376 void* onnxruntime::BFCArena::AllocateRawInternal(size_t, bool, "
                "onnxruntime::Stream*) Failed to allocate memory for requested buffer of size "
                f"{max(size, 1)}"
            ) from None
        weakref.finalize(self, _free, self.address, max(size, 1))


def _free(address: int, size: int) -> None:
    """Free memory, unless the test that allocated it has ended."""
    if address in record.live:
        record.free(address, size, True)


def dtype_of(element_type: Any) -> type:
    """The numpy type of an element type of onnxruntime."""
    return NUMPY[element_type] if isinstance(element_type, int | str) else np.dtype(element_type).type


def on_device(array: np.ndarray) -> tuple[int, Memory]:
    """Copy an array to new memory on the device. Returns its address, and the memory."""
    memory = Memory(array.nbytes)
    record.write(memory.address, array.tobytes())
    return memory.address, memory


def device_value_class(OrtValue: type) -> type:
    """The class of OrtValues on the device."""

    class DeviceValue(OrtValue):
        """A tensor on the device. Its memory is freed with it if it owns some."""

        def __init__(self, address: int, shape: Any, dtype: Any, memory: Memory | None) -> None:
            self._memory = memory
            self._view = record.array(address, tuple(shape), dtype)
            super().__init__(OrtValue.ortvalue_from_numpy(self._view)._get_c_value(), self._view)

        def device_name(self) -> str:
            return "cuda"

        def numpy(self) -> np.ndarray:
            record.calls.append(f"download {self._view.nbytes}")
            return self._view.copy()

        def update_inplace(self, data: Any) -> None:
            if isinstance(data, OrtValue):
                data = data.numpy()
            if not isinstance(data, np.ndarray):
                raise TypeError("data must be a numpy.ndarray or an OrtValue.")
            if data.dtype != self._view.dtype or data.nbytes != self._view.nbytes:
                raise RuntimeError("The input data of the array does not match the OrtValue.")
            record.calls.append(f"upload {data.nbytes}")
            self._view[...] = data.reshape(self._view.shape)

        def __dlpack__(self, *, stream: Any = None) -> Any:
            raise RuntimeError("the fake of onnxruntime exports no tensors on the device")

    return DeviceValue


def value_factories(OrtValue: type, DeviceValue: type) -> dict[str, Any]:
    """The functions of OrtValue that make values, also on the device."""
    from_numpy, from_shape = OrtValue.ortvalue_from_numpy, OrtValue.ortvalue_from_shape_and_type

    def ortvalue_from_numpy(numpy_obj, /, device_type="cpu", device_id=0, vendor_id=-1):
        if device_type.lower() not in ON_GPU:
            return from_numpy(numpy_obj, device_type, device_id, vendor_id)
        address, memory = on_device(np.ascontiguousarray(numpy_obj))
        record.calls.append(f"upload {numpy_obj.nbytes}")
        return DeviceValue(address, numpy_obj.shape, numpy_obj.dtype, memory)

    def ortvalue_from_shape_and_type(
        shape, element_type, device_type="cpu", device_id=0, vendor_id=-1, memory_info=None
    ):
        if device_type.lower() not in ON_GPU:
            return from_shape(shape, element_type, device_type, device_id, vendor_id, memory_info)
        dtype = np.dtype(dtype_of(element_type))
        memory = Memory(int(np.prod(shape)) * dtype.itemsize)
        return DeviceValue(memory.address, shape, dtype, memory)

    return {
        "ortvalue_from_numpy": staticmethod(ortvalue_from_numpy),
        "ortvalue_from_shape_and_type": staticmethod(ortvalue_from_shape_and_type),
    }
