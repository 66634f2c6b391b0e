# Type checkers do not find the types of cuda-core (they are in cuda/core/cu12 and cu13). Here every name is
# accepted; tests/tensorrt/test_contract.py checks this project against the real ones.
from typing import Any

def __getattr__(name: str) -> Any: ...
