"""The environment for a problem report: versions, settings, processor, memory."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Callable
from contextlib import suppress

from ...errors import BcmError
from ..log import without_home
from ..machine.cache_folder import cache_directory
from ..machine.environment import versions
from ..machine.jetson import jetson
from ..machine.processor import cpu_flags, cpu_model
from ..machine.resources import available_memory, processors, threads

# Distributions whose versions are shown besides those of machine/environment.py.
OTHERS = (
    "pillow",
    "click",
    "rich",
    "onnx",
    "safetensors",
    "tensorrt",
    "cuda-core",
    "ray",
    "tritonclient",
)
VARIABLES = ("BCM_EDGE_", "ORT_", "OMP_NUM_THREADS")  # starts of the names of shown environment variables


def report() -> list[str]:
    """Return the environment in lines, for a problem report.

    Of the user's environment variables, only those whose names start with VARIABLES are shown.
    """
    from ... import __version__

    system = f"{platform.system()} {platform.release()}, {platform.machine()}"
    flags = " ".join(cpu_flags()) or "none of the instruction sets that matter"
    memory = available_memory()
    libraries = ", ".join(f"{name} {version}" for name, version in _installed().items())
    lines = [
        f"bcm-edge {__version__}, Python {platform.python_version()}, {system}",
        f"processor: {cpu_model()} ({flags})",
        f"threads: {_value_or_error(threads)}; {processors()} of {os.cpu_count()} processors may be used",
        f"memory available: {'unknown' if memory is None else f'{memory / 1e9:.1f} GB'}",
        f"libraries: {libraries}",
        f"cache: {_value_or_error(cache_directory)}",
    ]
    for name, value in sorted(os.environ.items()):
        if name.startswith(VARIABLES):
            lines.append(f"variable: {name}={value}")
    if board := jetson():
        lines.append(f"board: {board}")
    return [without_home(line) for line in lines]


def _value_or_error(function: Callable[[], object]) -> object:
    """Return the value of a function, or its error."""
    try:
        return function()
    except BcmError as error:
        return error


def _installed() -> dict[str, str]:
    """Return distribution → version, for the installed libraries that compute, read or write."""
    installed = {name: version for name, version in versions().items() if version and name != "python"}
    for name in OTHERS:
        with suppress(importlib.metadata.PackageNotFoundError):
            installed[name] = importlib.metadata.version(name)
    return installed
