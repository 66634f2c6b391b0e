"""A fake of the driver functions that this project calls through cuda-bindings."""

from __future__ import annotations

import enum

import gpu_record as record

from cuda.core import refuse_while_recording

CUresult = enum.IntEnum("CUresult", {"CUDA_SUCCESS": 0, "CUDA_ERROR_OUT_OF_MEMORY": 2})

_sizes: dict[int, int] = {}


def cuMemAlloc(bytesize: int) -> tuple[CUresult, int]:
    refuse_while_recording()
    record.calls.append(f"cuMemAlloc {bytesize}")
    try:
        address = record.allocate(bytesize, True)
    except RuntimeError:
        return CUresult.CUDA_ERROR_OUT_OF_MEMORY, 0
    _sizes[address] = bytesize
    return CUresult.CUDA_SUCCESS, address


def cuMemFree(dptr: int) -> tuple[CUresult]:
    refuse_while_recording()
    record.calls.append("cuMemFree")
    record.free(dptr, _sizes.pop(dptr), True)
    return (CUresult.CUDA_SUCCESS,)
