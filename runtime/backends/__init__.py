"""The backends, which compute moves. Each is one module; its library is imported when the backend is opened.

A backend module contains:

    INFO: BackendInfo                       the name, device, precisions and libraries of the backend
    unavailable(precision, bundle=None, placement=ANYWHERE)
                                            why the precision cannot be computed here, or None if it can;
                                            with a bundle: why "auto" does not use this backend for the bundle
    open(bundle, precision, placement=ANYWHERE) -> Backend
                                            the opened model
    preferred(precision) -> bool            optional: whether "auto" tries this backend first here

A new backend needs one such module and its name in MODULES (docs/extending.md). The file of a name with
hyphens has underscores in their place.
"""

from __future__ import annotations

import importlib
import logging
from types import ModuleType

from ...errors import BackendError, InputError
from ..log import log, timed
from ..machine.gpu import probe
from ..machine.placement import ANYWHERE, Placement
from ..storage.bundle import Bundle
from ..storage.manifest import PRECISIONS
from ..wording import setting
from .base import Backend, BackendInfo, for_gpus

# "auto" tries them in this order.
MODULES = (
    "tensorrt",
    "onnxruntime-cuda",
    "onnxruntime-tensorrt",
    "onnxruntime-rtx",
    "onnxruntime",
    "openvino",
    "typed",
    "null",
)


def open_backend(
    name: str, bundle: Bundle, precision: str | None = None, placement: Placement = ANYWHERE
) -> Backend:
    """Open a bundle on the backend of this name, or on the fastest one that can run here ("auto").

    precision: None selects the precision of the newest engine for a backend that plays engines, else the most
        exact precision of the bundle.
    placement: the device and the CPU threads.

    A backend, precision or device that the caller specifies is never replaced by another.

    Raises BundleError if the bundle does not contain the precision, BackendError if the backend cannot run
    here or computes on another device.
    """
    if precision is not None:
        if precision not in PRECISIONS:
            raise InputError(f"unknown precision {precision!r}; choose one of {', '.join(PRECISIONS)}")
        bundle.graphs(precision)
    precisions = ", ".join(bundle.precisions)
    log.info("bundle: %s (%s), precisions %s", bundle.source, bundle.manifest.model.name, precisions)
    if name == "auto":
        name, precision = choose(bundle, precision, placement)
    if reason := wrong_device(name, placement):
        raise BackendError(reason)
    module = backend_module(name)
    precision = precision or _default_precision(name, bundle)
    reason = module.unavailable(precision, None, placement)
    if reason is not None:
        advice = ""
        if info(name).device == "gpu" and placement.device is None and not _has_gpu():
            advice = f"; on a machine without a GPU, use {setting('backend', 'auto')}"
        raise BackendError(f"{name}: {reason}{advice}")
    with timed(f"backend {name}: opening"):
        backend: Backend = module.open(bundle, precision, placement)
    log.info("backend %s: playing %s on %s", name, backend.precision, backend.device)
    if log.isEnabledFor(logging.INFO):  # bundle.hashes reads the graphs, which may be large
        for file, digest in bundle.hashes(backend.precision).items():
            log.info("bundle: %s, sha256 %s", file, digest)
    return backend


def _has_gpu() -> bool:
    try:
        probe()
    except BackendError:
        return False
    return True


def choose(bundle: Bundle, precision: str | None, placement: Placement = ANYWHERE) -> tuple[str, str | None]:
    """Return the backend and the precision that "auto" selects.

    An engine that was built on this machine comes first, then another backend on a GPU, then the CPU. A
    device that the caller specifies is never replaced by another. Raises BackendError if no backend can run
    the precision here.
    """
    reasons: dict[str, list[str]] = {}  # reason → the backends that cannot run for it
    for name in playing():
        if info(name).device != "gpu" or not info(name).automatic or placement.kind == "cpu":
            continue
        wanted = precision or _default_precision(name, bundle)
        reason = backend_module(name).unavailable(wanted, bundle, placement)
        if reason is None:
            log.info("backend %s: chosen for this GPU", name)
            return name, wanted
        log.info("backend %s: not chosen, %s", name, reason)
        reasons.setdefault(reason, []).append(name)
    if placement.kind == "gpu":
        why = "; ".join(f"{', '.join(names)}: {reason}" for reason, names in reasons.items())
        raise BackendError(f"no backend can run on the device {placement.device} here; {why}")
    precision = precision or bundle.precisions[0]
    return _choose_on_processor(precision), precision


def _default_precision(name: str, bundle: Bundle) -> str | None:
    """Return the most exact precision of a bundle, or None for a backend whose engine determines it."""
    return None if info(name).plays_engines else bundle.precisions[0]


def _choose_on_processor(precision: str) -> str:
    """Return the first backend of `preference` that can run here. Raises BackendError if there is none."""
    names = preference(precision)
    reasons = [reason] if (reason := for_gpus(precision)) else []
    for index, name in enumerate(names):
        reason = backend_module(name).unavailable(precision)
        if reason is None:
            log.info("backend %s: chosen for %s", name, precision)
            for other in names[index + 1 :]:
                message = "backend %s: not tried, %s comes first for %s on this processor"
                log.info(message, other, name, precision)
            return name
        log.info("backend %s: not chosen, %s", name, reason)
        reasons.append(f"{name}: {reason}")
    raise BackendError(f"no backend can run {precision} here; {'; '.join(reasons)}")


def preference(precision: str) -> list[str]:
    """Return the backends for a precision on this processor, the fastest first (docs/performance.md)."""
    names = [name for name in playing() if info(name).device == "cpu" and precision in info(name).precisions]
    return sorted(names, key=lambda name: not _preferred(name, precision))


def wrong_device(name: str, placement: Placement) -> str | None:
    """Return why a backend cannot compute on the device of a placement, or None if it can."""
    device = info(name).device
    if placement.kind in (None, device) or device == "none":
        return None
    others = [other for other in playing() if info(other).device == placement.kind]
    return (
        f"backend {name} computes on a {device.upper()}, not on the device {placement.device}; "
        f"choose another device, or one of these backends: {', '.join(others)}"
    )


def _preferred(name: str, precision: str) -> bool:
    preferred = getattr(backend_module(name), "preferred", None)
    return preferred is not None and preferred(precision)


def playing() -> list[str]:
    """Return the backends that users run: all except those for checks and tests."""
    return [name for name in MODULES if info(name).purpose == "play"]


def checking_backend(precision: str) -> str | None:
    """Return the backend that rounds exactly as the graphs of a precision specify.

    None if the precision needs no such backend.
    """
    names = [name for name in MODULES if info(name).purpose == "check" and precision in info(name).precisions]
    return names[0] if names else None


def info(name: str) -> BackendInfo:
    """Return what a backend declares about itself. Raises BackendError for an unknown name."""
    declared: BackendInfo = backend_module(name).INFO
    return declared


def summaries() -> str:
    """Return the names of all backends, each with its summary, for the help of commands."""
    return ", ".join(f"{name} ({info(name).summary})" for name in MODULES)


def backend_module(name: str) -> ModuleType:
    """Return the module of a backend. Raises BackendError for an unknown name."""
    if name not in MODULES:
        raise BackendError(f"unknown backend {name!r}; choose auto, {', '.join(MODULES)}")
    return importlib.import_module(f".{name.replace('-', '_')}", __name__)
