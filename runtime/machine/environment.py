"""The conditions under which something was measured: processor, threads, versions, load, Jetson power mode.

Only files are read; no process is started.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
from contextlib import suppress
from typing import Any

from .jetson import jetson
from .processor import cpu_flags, cpu_model
from .resources import threads

# Modules. A distribution of the same name usually provides each of them.
LIBRARIES = ("numpy", "onnxruntime", "openvino", "torch")


def environment() -> dict[str, Any]:
    """Return everything that has to be recorded with a measured time, as JSON values.

    load_average: the load of the last minute, or None where the system does not report it.
    """
    values: dict[str, Any] = {
        "machine": platform.machine(),
        "system": f"{platform.system()} {platform.release()}",
        "cpu": cpu_model(),
        "flags": cpu_flags(),
        "threads": threads(),
        "processors": os.cpu_count(),
        "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "versions": versions(),
    }
    board = jetson()
    return {**values, "jetson": board} if board else values


def versions() -> dict[str, str | None]:
    """Return distribution → version, for Python and every library that may compute. No library is imported.

    Several distributions can provide one module, such as onnxruntime and onnxruntime-gpu; all that are
    installed are listed. The value is None for a name of LIBRARIES that is not installed.
    """
    providers = importlib.metadata.packages_distributions()
    result: dict[str, str | None] = {"python": platform.python_version()}
    for module in LIBRARIES:
        result[module] = None
        for name in dict.fromkeys((module, *sorted(providers.get(module, ())))):
            with suppress(importlib.metadata.PackageNotFoundError):
                result[name] = importlib.metadata.version(name)
    return result
