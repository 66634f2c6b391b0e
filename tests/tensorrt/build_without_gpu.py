"""A GPU for builds by the TensorRT-RTX library, which runs without one."""

from __future__ import annotations

from bcm_edge.runtime.machine.gpu import Gpu

ORIN = Gpu(99, "Orin", "8.7", 16, 8_000_000_000, True, "12.6")  # no machine has a GPU of this index

# Code that is put before CHILD, so that the process finds a GPU.
WITH_GPU = """
import os
from bcm_edge.export.engines import compiler
from bcm_edge.runtime.machine.gpu import Gpu
orin = Gpu(99, "Orin", "8.7", 16, 8_000_000_000, True, "12.6")
compiler.make_current = lambda index: None
compiler.probe = lambda index: orin
compiler.free_memory = lambda gpu: 5_000_000_000
"""
