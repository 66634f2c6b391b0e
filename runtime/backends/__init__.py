"""Where moves are computed. Each backend is one module; its library is imported when the backend is opened.

A backend module contains:

    INFO: BackendInfo                            what the backend is
    unavailable(precision, bundle=None)          why it cannot run that precision here, or None; with a bundle, why
                                                 "auto" would not play that bundle on it
    open(bundle, precision) -> Backend
    preferred(precision) -> bool                 optional: whether "auto" tries it before all others on this processor

A new backend needs one such module and its name in MODULES (docs/extending.md).
"""

from __future__ import annotations

import importlib
import logging
from types import ModuleType

from ...errors import BackendError, InputError
from ..log import log, timed
from ..storage.bundle import Bundle
from ..storage.manifest import PRECISIONS
from .base import Backend, BackendInfo

MODULES = ("tensorrt", "onnxruntime", "openvino", "typed", "null")  # "auto" tries them in this order


def open_backend(name: str, bundle: Bundle, precision: str | None = None) -> Backend:
    """Open a bundle on the backend of this name, or on the fastest one that can run here ("auto").

    precision: None takes, on a GPU, that of an engine built for it, else the most exact precision of the
    bundle.

    A backend or precision that is asked for by name is never replaced. Raises BundleError if the bundle has
    no such graphs, BackendError if the backend cannot run here.
    """
    if precision is not None:
        if precision not in PRECISIONS:
            raise InputError(f"unknown precision {precision!r}; choose one of {', '.join(PRECISIONS)}")
        bundle.graphs(precision)
    precisions = ", ".join(bundle.precisions)
    log.info("bundle: %s (%s), precisions %s", bundle.path, bundle.manifest.model.name, precisions)
    if name == "auto":
        name, precision = choose(bundle, precision)
    module = backend_module(name)
    if info(name).device != "gpu":  # an engine has its own precision
        precision = precision or bundle.precisions[0]
    if reason := module.unavailable(precision):
        advice = "; on a machine without a GPU, use --backend auto" if info(name).device == "gpu" else ""
        raise BackendError(f"{name}: {reason}{advice}")
    with timed(f"backend {name}: opening"):
        backend: Backend = module.open(bundle, precision)
    log.info("backend %s: playing %s on %s", name, backend.precision, backend.device)
    if log.isEnabledFor(
        logging.INFO
    ):  # otherwise large graphs would be read only for the names of their weights files
        for file, digest in bundle.hashes(backend.precision).items():
            log.info("bundle: %s, sha256 %s", file, digest)
    return backend


def choose(bundle: Bundle, precision: str | None) -> tuple[str, str | None]:
    """Return the backend and the precision that "auto" plays.

    An engine that was built on this machine comes first. Raises BackendError if no backend can run the
    precision here.
    """
    for name in (name for name in playing() if info(name).device == "gpu"):
        reason = backend_module(name).unavailable(precision, bundle)
        if reason is None:
            log.info("backend %s: chosen, an engine fits this GPU", name)
            return name, precision
        log.info("backend %s: not chosen, %s", name, reason)
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


def preference(precision: str) -> list[str]:
    """Return the backends that play a precision on this processor, the fastest first (docs/performance.md)."""
    names = [name for name in playing() if info(name).device == "cpu" and precision in info(name).precisions]
    return sorted(names, key=lambda name: not _preferred(name, precision))


def _preferred(name: str, precision: str) -> bool:
    preferred = getattr(backend_module(name), "preferred", None)
    return preferred is not None and preferred(precision)


def playing() -> list[str]:
    """Return the backends that users play bundles on: all but those for checks and tests."""
    return [name for name in MODULES if info(name).purpose == "play"]


def checking_backend(precision: str) -> str | None:
    """Return the backend that rounds exactly as the graphs of a precision specify, or None if none is needed."""
    names = [name for name in MODULES if info(name).purpose == "check" and precision in info(name).precisions]
    return names[0] if names else None


def info(name: str) -> BackendInfo:
    """Return what a backend declares. Raises BackendError for an unknown name."""
    declared: BackendInfo = backend_module(name).INFO
    return declared


def backend_module(name: str) -> ModuleType:
    """Return the module of a backend. Raises BackendError for an unknown name."""
    if name not in MODULES:
        raise BackendError(f"unknown backend {name!r}; choose auto, {', '.join(MODULES)}")
    return importlib.import_module(f".{name}", __name__)
