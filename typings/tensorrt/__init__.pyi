# TensorRT has no type stubs, and its names differ between versions. Here every name is accepted;
# tests/tensorrt/test_contract.py checks this project against the real bindings of each version.
from typing import Any

def __getattr__(name: str) -> Any: ...
