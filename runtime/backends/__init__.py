"""Where moves are computed: one file per backend, found by name, its library imported when it is opened and not before.

A backend module has `unavailable(precision) -> str | None` (why it cannot run that here) and `open(bundle, precision) -> Backend`.
"""

from __future__ import annotations

import importlib
from types import ModuleType

from ...errors import BackendError, InputError
from ..bundle import Bundle
from .base import Backend

PREFERENCE = {  # what `auto` tries for each precision, the best first, as docs/performance.md measured it
    "fp32": ("onnxruntime", "openvino"),
    "fp16": ("onnxruntime",),
    "bf16": ("openvino",),
    "int8": ("onnxruntime", "openvino"),
}
REAL = ("onnxruntime", "openvino")  # those that compute
NAMES = (*REAL, "typed", "null")
CHECKING = {"fp16": "typed", "bf16": "typed"}  # precision → the backend that rounds as its graphs say, where `auto` may not


def open_backend(name: str, bundle: Bundle, precision: str | None = None) -> Backend:
    """Open a bundle on the named backend, or on the fastest that can run here ("auto").

    precision: None takes the most exact that the bundle holds. Nothing asked for by name is replaced by anything else: it runs, or
    BundleError (no such graphs) or BackendError says why not.
    """
    precision = bundle.precisions[0] if precision is None else precision
    if precision not in PREFERENCE:
        raise InputError(f"{precision!r} is no precision; there are {', '.join(PREFERENCE)}")
    bundle.graphs(precision)
    reasons = []
    for candidate in preference(precision) if name == "auto" else (name,):
        module = backend_module(candidate)
        if (reason := module.unavailable(precision)) is None:
            return module.open(bundle, precision)
        reasons.append(f"{candidate}: {reason}")
    raise BackendError(f"no backend can run {precision} here; {'; '.join(reasons)}" if name == "auto" else reasons[0])


def preference(precision: str) -> tuple[str, ...]:
    """PREFERENCE on this processor: with matrix units for 8 bits (AMX), which ONNX Runtime does not use, openvino comes first."""
    from ..environment import cpu_flags

    names = PREFERENCE[precision]
    return names[::-1] if precision == "int8" and "amx_int8" in cpu_flags() else names


def backend_module(name: str) -> ModuleType:
    """The module of a backend. Raises BackendError for an unknown name."""
    if name not in NAMES:
        raise BackendError(f"unknown backend {name!r}; there are auto, {', '.join(NAMES)}")
    return importlib.import_module(f".{name}", __name__)
