"""What a report of a problem needs: versions, settings, processor, memory."""

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
)  # distributions
VARIABLES = (
    "BCM_EDGE_",
    "ORT_",
    "OMP_NUM_THREADS",
)  # of the environment, those that a report shows: they begin so


def report() -> list[str]:
    """The environment in lines, for a report of a problem: no more of the user's than the variables that begin with VARIABLES."""
    from ... import __version__

    memory, board = available_memory(), jetson()
    lines = [
        f"bcm-edge {__version__}, Python {platform.python_version()}, {platform.system()} {platform.release()}, {platform.machine()}",
        f"processor: {cpu_model()} ({' '.join(cpu_flags()) or 'none of the instruction sets that matter'})",
        f"threads: {_told(threads)}; {processors()} of {os.cpu_count()} processors may be used",
        f"memory available: {'unknown' if memory is None else f'{memory / 1e9:.1f} GB'}",
        f"libraries: {', '.join(f'{name} {version}' for name, version in _installed().items())}",
        f"cache: {_told(cache_directory)}",
        *(
            f"variable: {name}={value}"
            for name, value in sorted(os.environ.items())
            if name.startswith(VARIABLES)
        ),
        *([f"board: {board}"] if board else []),
    ]
    return [without_home(line) for line in lines]


def _told(value: Callable[[], object]) -> object:
    """A value, or why there is none."""
    try:
        return value()
    except BcmError as error:
        return error


def _installed() -> dict[str, str]:
    """Distribution → version, of those that may compute, read or write here and are installed."""
    installed = {name: version for name, version in versions().items() if version and name != "python"}
    for name in OTHERS:
        with suppress(importlib.metadata.PackageNotFoundError):
            installed[name] = importlib.metadata.version(name)
    return installed
