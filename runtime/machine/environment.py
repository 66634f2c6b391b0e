"""The environment of a measurement: processor, threads, versions and load; on a Jetson its power mode and clocks.

Reads files and starts no process.
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

LIBRARIES = (
    "numpy",
    "onnxruntime",
    "openvino",
    "torch",
)  # modules, and the distributions that usually provide them


def environment() -> dict[str, Any]:
    """Everything a table of times needs beside it. load_average: of the last minute, or None where the system does not tell."""
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
    """The versions of Python and of every library that may compute, by distribution. Imports none of them.

    Several distributions can provide one module, such as onnxruntime and onnxruntime-gpu: all that are installed are listed. A name of
    LIBRARIES that is not installed has None.
    """
    providers = importlib.metadata.packages_distributions()
    result: dict[str, str | None] = {"python": platform.python_version()}
    for module in LIBRARIES:
        result[module] = None
        for name in dict.fromkeys((module, *sorted(providers.get(module, ())))):
            with suppress(importlib.metadata.PackageNotFoundError):
                result[name] = importlib.metadata.version(name)
    return result
