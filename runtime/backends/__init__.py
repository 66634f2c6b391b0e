"""Where moves are computed: one file per backend, found by name, its library imported when it is opened and not before.

A backend module has `unavailable() -> str | None` (why it cannot run here) and `open(bundle) -> Backend`.
"""

from __future__ import annotations

import importlib
from types import ModuleType

from ...errors import BackendError
from ..bundle import Bundle
from .base import Backend

PREFERENCE = ("onnxruntime",)  # what `auto` tries, fastest first
NAMES = (*PREFERENCE, "null")


def open_backend(name: str, bundle: Bundle) -> Backend:
    """Open a bundle on the named backend, or on the first of PREFERENCE that can run here ("auto").

    A backend asked for by name runs, or BackendError says why not; nothing else takes its place.
    """
    reasons = []
    for candidate in PREFERENCE if name == "auto" else (name,):
        module = backend_module(candidate)
        if (reason := module.unavailable()) is None:
            return module.open(bundle)
        reasons.append(f"{candidate}: {reason}")
    raise BackendError(f"no backend can run here; {'; '.join(reasons)}" if name == "auto" else reasons[0])


def backend_module(name: str) -> ModuleType:
    """The module of a backend. Raises BackendError for an unknown name."""
    if name not in NAMES:
        raise BackendError(f"unknown backend {name!r}; there are auto, {', '.join(NAMES)}")
    return importlib.import_module(f".{name}", __name__)
