# TensorRT has no types of its own, and its names differ by version: tests/tensorrt/test_contract.py checks this project against the real
# bindings of each. Here every name is let through.
from typing import Any

def __getattr__(name: str) -> Any: ...
