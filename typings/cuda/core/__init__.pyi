# cuda-core's types lie where no type checker finds them (cuda/core/cu12, cu13): tests/tensorrt/test_contract.py checks this project against
# them. Here every name is let through.
from typing import Any

def __getattr__(name: str) -> Any: ...
