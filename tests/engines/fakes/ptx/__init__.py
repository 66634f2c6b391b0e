"""Executes PTX, the assembly language of NVIDIA's GPUs, on the processor.

parsing.py     the text as kernels and instructions
arithmetic.py  what the instructions compute
threads.py     the threads of a launch, and their registers and memory

It knows the instructions of runtime/engines/noise.ptx, and refuses others. All threads of a launch compute an
instruction together, as numpy arrays. The instruction set is described at
https://docs.nvidia.com/cuda/parallel-thread-execution
"""

from .parsing import Kernel, kernels
from .threads import Launch

__all__ = ["Kernel", "Launch", "kernels"]
