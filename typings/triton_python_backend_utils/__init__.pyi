# The module exists inside Triton's Python backend only, and has no types.
from typing import Any

def __getattr__(name: str) -> Any: ...
