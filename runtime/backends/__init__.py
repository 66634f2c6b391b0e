"""Where moves are computed: one file per backend, found by name, its library imported when it is opened and not before.

A backend module has `unavailable(precision, bundle=None) -> str | None` (why it cannot run that here; given a bundle, why `auto` would not
play that bundle on it either) and `open(bundle, precision) -> Backend`.
"""

from __future__ import annotations

import importlib
import logging
from types import ModuleType

from ...errors import BackendError, InputError
from ..log import log, timed
from ..storage.bundle import Bundle
from .base import Backend

PREFERENCE = {  # what `auto` tries on the processor for each precision, the best first, as docs/performance.md measured it
    "fp32": ("onnxruntime", "openvino"),
    "fp16": ("onnxruntime",),
    "bf16": ("openvino",),
    "int8": ("onnxruntime", "openvino"),
}
REAL = ("tensorrt", "onnxruntime", "openvino")  # those that compute
NAMES = (*REAL, "typed", "null")
CHECKING = {
    "fp16": "typed",
    "bf16": "typed",
}  # precision → the backend that rounds as its graphs say, where `auto` may not


def open_backend(name: str, bundle: Bundle, precision: str | None = None) -> Backend:
    """Open a bundle on the named backend, or on the fastest that can run here ("auto").

    precision: None takes that of an engine built for this GPU, on tensorrt, else the most exact that the bundle holds. Nothing asked
    for by name is replaced by anything else: it runs, or BundleError (no such graphs) or BackendError says why not.
    """
    if precision is not None:
        if precision not in PREFERENCE:
            raise InputError(f"{precision!r} is no precision; there are {', '.join(PREFERENCE)}")
        bundle.graphs(precision)
    log.info(
        "bundle: %s (%s), precisions %s",
        bundle.path,
        bundle.manifest.model.name,
        ", ".join(bundle.precisions),
    )
    if name == "auto":
        name, precision = choose(bundle, precision)
    module = backend_module(name)
    if name != "tensorrt":
        precision = precision or bundle.precisions[0]
    if reason := module.unavailable(precision):
        raise BackendError(f"{name}: {reason}")
    with timed(f"backend {name}: opening"):
        backend: Backend = module.open(bundle, precision)
    log.info("backend %s: playing %s on %s", name, backend.precision, backend.device)
    if log.isEnabledFor(logging.INFO):  # large graphs are read for the names of their weights files
        for file, digest in bundle.hashes(backend.precision).items():
            log.info("bundle: %s, sha256 %s", file, digest)
    return backend


def choose(bundle: Bundle, precision: str | None) -> tuple[str, str | None]:
    """The backend that `auto` plays on, and the precision. An engine for this GPU comes first: somebody built it to be used.

    Raises BackendError if nothing runs that precision here.
    """
    reason = backend_module("tensorrt").unavailable(precision, bundle)
    if reason is None:
        log.info("backend tensorrt: chosen, an engine fits this GPU")
        return "tensorrt", precision
    log.info("backend tensorrt: not chosen, %s", reason)
    precision = precision or bundle.precisions[0]
    names, reasons = preference(precision), []
    for index, name in enumerate(names):
        if (reason := backend_module(name).unavailable(precision)) is None:
            log.info("backend %s: chosen for %s", name, precision)
            for other in names[index + 1 :]:
                log.info(
                    "backend %s: not tried, %s comes first for %s on this processor", other, name, precision
                )
            return name, precision
        log.info("backend %s: not chosen, %s", name, reason)
        reasons.append(f"{name}: {reason}")
    raise BackendError(f"no backend can run {precision} here; {'; '.join(reasons)}")


def preference(precision: str) -> tuple[str, ...]:
    """PREFERENCE on this processor: with matrix units for 8 bits (AMX), which ONNX Runtime does not use, openvino comes first."""
    from ..machine.processor import cpu_flags

    names = PREFERENCE[precision]
    return names[::-1] if precision == "int8" and "amx_int8" in cpu_flags() else names


def backend_module(name: str) -> ModuleType:
    """The module of a backend. Raises BackendError for an unknown name."""
    if name not in NAMES:
        raise BackendError(f"unknown backend {name!r}; there are auto, {', '.join(NAMES)}")
    return importlib.import_module(f".{name}", __name__)
