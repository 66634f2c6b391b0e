"""Noise drawn on the GPU, by a kernel that gives the numbers of runtime/noise.py.

noise.cu has the equations and the source. noise.ptx is the compiled kernel, which cuda-core passes to the
driver; the driver compiles it for its GPU. Libraries of CUDA are imported when the kernel is loaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..machine.gpu import Gpu
from ..noise import VARIATION_DRAW, Draw
from ..wording import first_line

if TYPE_CHECKING:
    from cuda.core import Device, Stream

    from .memory import DeviceMemory

PTX = Path(__file__).with_name("noise.ptx")
# What the driver and the GPU need for the PTX: its ISA is 8.2, and its target is sm_80.
CUDA = (12, 2)
CAPABILITY = (8, 0)

BLOCK = 128  # threads
PER_THREAD = 8  # numbers that a thread draws

# The draw with which a kernel is tried. Its odd number of values takes two blocks of threads.
TRIAL = Draw((0, 2**64 - 1), (3, 13, 29), VARIATION_DRAW + 1, 80.0)
ROUNDING = 1e-6  # the largest difference of two numbers of standard deviation 1, which is two roundings


class NoiseKernel:
    """The kernel on one GPU."""

    def __init__(self, device: Device) -> None:
        """Load the kernel. The exceptions are those of cuda-core."""
        from cuda.core import ObjectCode

        device.set_current()
        self._kernel = ObjectCode.from_ptx(PTX.read_bytes(), name="noise").get_kernel("normal")

    def launch(
        self, stream: Stream, out: int, seeds: int, rows: int, count: int, number: int, sigma: float
    ) -> None:
        """Draw sigma · standard_normal(seeds, (count,), number), in stream order or as part of a CUDA graph.

        Args:
            stream: The stream, which may be recorded.
            out: The address of the result on the GPU, float32 [rows, count].
            seeds: The address of the seeds on the GPU, uint64 [rows].
            rows: The number of samples, 1 to 65535.
            count: The numbers of a sample, 1 to 2**31.
            number: The number of the draw, in [0, 2**64).
            sigma: The standard deviation.
        """
        from cuda.core import LaunchConfig, launch

        threads = -(-count // PER_THREAD)
        config = LaunchConfig(grid=(-(-threads // BLOCK), rows), block=BLOCK)
        arguments = out, seeds, np.uint64(number), np.uint32(count), np.float32(sigma)
        launch(stream, config, self._kernel, *arguments)


def why_unavailable(gpu: Gpu) -> str | None:
    """Return why the kernel cannot be loaded on a GPU, or None."""
    if _version(gpu.capability) < CAPABILITY:
        return f"the kernel needs compute capability 8.0, and this GPU has {gpu.capability}"
    if _version(gpu.cuda) < CUDA:
        return f"the kernel needs a driver for CUDA 12.2, and this one is for {gpu.cuda}"
    return None


def load_kernel(
    gpu: Gpu, device: Device, memory: DeviceMemory, stream: Stream
) -> tuple[NoiseKernel | None, str]:
    """Return the kernel, after it has drawn the same numbers as the processor, or None and the reason.

    gpu, device: the same GPU.
    """
    if reason := why_unavailable(gpu):
        return None, reason
    try:
        kernel = NoiseKernel(device)
        difference = np.abs(drawn(kernel, TRIAL, memory, stream) - TRIAL.values()).max() / TRIAL.sigma
    except Exception as error:  # the errors of cuda-core have no common base class
        return None, f"the kernel failed: {first_line(error)}"
    if not difference <= ROUNDING:
        return None, f"the kernel drew other numbers (difference {difference:.1e})"
    return kernel, ""


def drawn(kernel: NoiseKernel, draw: Draw, memory: DeviceMemory, stream: Stream) -> np.ndarray:
    """Return a draw from the GPU, float32 [N, C, H, W]. The exceptions are those of cuda-core."""
    from .memory import Block

    rows, count = len(draw), int(np.prod(draw.shape))
    layout = {"seeds": ((rows,), np.uint64), "noise": ((rows, *draw.shape), np.float32)}
    block = Block(False, memory, stream, layout)
    try:
        block.arrays["seeds"][:] = seed_array(draw.seeds)
        block.arrays["noise"].fill(np.nan)
        block.upload()
        addresses = block.address("noise"), block.address("seeds")
        kernel.launch(stream, *addresses, rows, count, draw.number, draw.sigma)
        block.download("noise", "noise")
        stream.sync()
        return block.arrays["noise"].copy()
    finally:
        block.close()


def seed_array(seeds: Sequence[int]) -> np.ndarray:
    """Return seeds as an array for the kernel, uint64 [N]."""
    return np.array([int(seed) for seed in seeds], np.uint64)


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))
