# benchmarks/peers.py measures diffusers where it is installed; no extra installs it.
from typing import Any

def __getattr__(name: str) -> Any: ...
