"""Engines: what TensorRT makes of a bundle's graphs for one GPU. Which GPU is here, which engines there are, and which of them fit.

Compiling them is `export/`'s; playing moves on them is `runtime/backends/tensorrt.py`'s. Importing this room takes no CUDA library.
"""
