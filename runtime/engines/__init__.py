"""Engines, which TensorRT compiles from the graphs of a bundle for one GPU: their folders, and how they run.

`export/engines/` builds engines, and `runtime/backends/tensorrt.py` plays moves on them. store.py and
facts.py import no library of CUDA.
"""
