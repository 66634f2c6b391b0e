"""Compile runtime/engines/noise.cu to runtime/engines/noise.ptx, with NVRTC of CUDA 12.2. It needs no GPU.

    pip install nvidia-cuda-nvrtc-cu12==12.2.140
    python tests/compile_noise.py

Version 12.2 writes PTX ISA 8.2, which drivers for CUDA 12.2 and newer load. A newer NVRTC would write a newer
ISA, which they refuse.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ENGINES = Path(__file__).resolve().parents[1] / "runtime" / "engines"
SOURCE, PTX = ENGINES / "noise.cu", ENGINES / "noise.ptx"
NVRTC = "12.2.140"  # of the package nvidia-cuda-nvrtc-cu12
OPTIONS = ("--gpu-architecture=compute_80",)  # Ampere; drivers compile it for Orin and all newer GPUs


def missing_nvrtc() -> str | None:
    """Return why the source cannot be compiled here, or None."""
    try:
        installed = version("nvidia-cuda-nvrtc-cu12")
    except PackageNotFoundError:
        return f"NVRTC is not installed; pip install nvidia-cuda-nvrtc-cu12=={NVRTC}"
    return None if installed == NVRTC else f"NVRTC {installed} is installed; {NVRTC} writes PTX ISA 8.2"


def compiled(source: bytes) -> bytes:
    """Return the PTX of a source, with the hash of the source in front.

    Raises RuntimeError with NVRTC's messages.
    """
    nvrtc, program = _library(), ctypes.c_void_p()
    _check(nvrtc.nvrtcCreateProgram(ctypes.byref(program), source, b"noise.cu", 0, None, None))
    options = (ctypes.c_char_p * len(OPTIONS))(*(option.encode() for option in OPTIONS))
    status = nvrtc.nvrtcCompileProgram(program, len(OPTIONS), options)
    if status:
        raise RuntimeError(_text(nvrtc.nvrtcGetProgramLogSize, nvrtc.nvrtcGetProgramLog, program).decode())
    ptx = _text(nvrtc.nvrtcGetPTXSize, nvrtc.nvrtcGetPTX, program)
    _check(nvrtc.nvrtcDestroyProgram(ctypes.byref(program)))
    return header(source) + ptx.strip() + b"\n"


def header(source: bytes) -> bytes:
    """Return the first lines of the PTX of a source."""
    options = " ".join(OPTIONS)
    return (
        f"// noise.cu, compiled by NVRTC {NVRTC} with {options}\n"
        f"// sha256 of noise.cu: {hashlib.sha256(source).hexdigest()}\n"
    ).encode()


def _library() -> Any:
    package = importlib.util.find_spec("nvidia.cuda_nvrtc")
    assert package is not None and package.submodule_search_locations
    folder = Path(next(iter(package.submodule_search_locations)))
    return ctypes.CDLL(str(next(folder.glob("lib/libnvrtc.so.12"))))


def _text(get_size: Any, get: Any, program: ctypes.c_void_p) -> bytes:
    size = ctypes.c_size_t()
    _check(get_size(program, ctypes.byref(size)))
    buffer = ctypes.create_string_buffer(size.value)
    _check(get(program, buffer))
    return buffer.value


def _check(status: int) -> None:
    if status:
        raise RuntimeError(f"NVRTC reports error {status}")


def main() -> None:
    if reason := missing_nvrtc():
        sys.exit(reason)
    PTX.write_bytes(compiled(SOURCE.read_bytes()))
    print(f"{PTX}: {PTX.stat().st_size} bytes")


if __name__ == "__main__":
    main()
