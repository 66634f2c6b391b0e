# The functions of the CUDA driver that this project calls. cuda-bindings has no types;
# tests/tensorrt/test_contract.py checks these against it.
import enum

class CUresult(enum.IntEnum):
    CUDA_SUCCESS = 0
    CUDA_ERROR_OUT_OF_MEMORY = 2

class CUdeviceptr:
    def __int__(self) -> int: ...

def cuMemAlloc(bytesize: int) -> tuple[CUresult, CUdeviceptr]: ...
def cuMemFree(dptr: object) -> tuple[CUresult]: ...
