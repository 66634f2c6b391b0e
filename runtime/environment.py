"""What a measurement was made on, and what a report of a problem needs: processor, threads, memory, versions, load; on a Jetson its power
mode and clocks. Reads files, runs nothing."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..errors import BcmError
from .backends.onnxruntime import threads
from .cache import cache_directory
from .log import without_home
from .resources import available_memory, processors

LIBRARIES = ("numpy", "onnxruntime", "openvino", "torch")  # modules, and the distributions that usually provide them
OTHERS = ("pillow", "click", "rich", "onnx", "safetensors", "tensorrt", "cuda-core", "ray", "tritonclient")  # distributions
VARIABLES = ("BCM_EDGE_", "ORT_", "OMP_NUM_THREADS")  # of the environment, those that a report shows: they begin so
FLAGS = (  # instruction sets that decide how fast a precision is: x86, then Arm (where /proc/cpuinfo names them differently)
    *("avx2", "f16c", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "avx512_fp16", "amx_bf16", "amx_int8", "amx_fp16"),
    *("asimd", "asimdhp", "asimddp", "fphp", "bf16", "i8mm", "sve", "sve2"),
)


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


def report() -> list[str]:
    """The environment in lines, for a report of a problem: no more of the user's than the variables that begin with VARIABLES."""
    from .. import __version__

    memory, board = available_memory(), jetson()
    lines = [
        f"bcm-edge {__version__}, Python {platform.python_version()}, {platform.system()} {platform.release()}, {platform.machine()}",
        f"processor: {cpu_model()} ({' '.join(cpu_flags()) or 'none of the instruction sets that matter'})",
        f"threads: {_told(threads)}; {processors()} of {os.cpu_count()} processors may be used",
        f"memory available: {'unknown' if memory is None else f'{memory / 1e9:.1f} GB'}",
        f"libraries: {', '.join(f'{name} {version}' for name, version in _installed().items())}",
        f"cache: {_told(cache_directory)}",
        *(f"variable: {name}={value}" for name, value in sorted(os.environ.items()) if name.startswith(VARIABLES)),
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


class Others:
    """How much of the processors other processes take from now on; a virtual machine's neighbours count with them."""

    def __init__(self) -> None:
        self._started = time.perf_counter(), time.process_time(), busy_seconds()

    def share(self) -> float | None:
        """Of all processors' time since then, 0 to 1; None where the system does not tell."""
        started, own, busy = self._started
        now = busy_seconds()
        if busy is None or now is None:
            return None
        elapsed = (time.perf_counter() - started) * (os.cpu_count() or 1)
        return min(max((now - busy - (time.process_time() - own)) / elapsed, 0.0), 1.0)


def busy_seconds(root: Path = Path("/")) -> float | None:
    """Processor seconds since the start of the machine in which some process ran, or a neighbour of this virtual machine."""
    words = _text(root / "proc/stat").partition("\n")[0].split()
    if len(words) < 9 or words[0] != "cpu":
        return None
    user, nice, system, _idle, _waiting, irq, softirq, steal = map(int, words[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


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


def cpu_model(root: Path = Path("/")) -> str:
    """The processor's or the board's name."""
    return _cpuinfo(root, "model name") or _text(root / "proc/device-tree/model") or platform.processor() or platform.machine()


def cpu_flags(root: Path = Path("/")) -> list[str]:
    """Those of FLAGS that the first processor has."""
    held = (_cpuinfo(root, "flags") or _cpuinfo(root, "Features") or "").split()
    return [flag for flag in FLAGS if flag in held]


def jetson(root: Path = Path("/")) -> dict[str, Any] | None:
    """A Jetson's board, power mode ("0 MAXN"), and clocks now and at most, in MHz, by device; None on anything else."""
    mode = re.search(r"pmode:(\d+)", _text(root / "var/lib/nvpmodel/status"))
    names = dict(re.findall(r"<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=(\S+?)\s*>", _text(root / "etc/nvpmodel.conf")))
    if mode is None and not names:
        return None
    number = None if mode is None else str(int(mode[1]))
    power = None if number is None else f"{number} {names.get(number, '')}".strip()
    return {"board": _text(root / "proc/device-tree/model"), "power_mode": power, "clocks_mhz": _clocks(root)}


def _clocks(root: Path) -> dict[str, dict[str, float]]:
    """Device → {"now", "max"} in MHz. cpufreq counts in kHz, devfreq (the GPU among others) in Hz."""
    places = (
        ("sys/devices/system/cpu/cpu*/cpufreq", "scaling_cur_freq", "scaling_max_freq", 1e3),
        ("sys/class/devfreq/*", "cur_freq", "max_freq", 1e6),
    )
    clocks = {}
    for pattern, now, most, per_mhz in places:
        for folder in sorted(root.glob(pattern)):
            name = folder.parent.name if folder.name == "cpufreq" else folder.name
            with suppress(ValueError):  # a clock that is off or not for everybody's eyes
                clocks[name] = {"now": int(_text(folder / now)) / per_mhz, "max": int(_text(folder / most)) / per_mhz}
    return clocks


def _cpuinfo(root: Path, key: str) -> str:
    """The value of the first line of /proc/cpuinfo with this key, or ""."""
    line = re.search(rf"^{key}\s*:\s*(.*)$", _text(root / "proc/cpuinfo"), re.MULTILINE)
    return line[1].strip() if line else ""


def _text(file: Path) -> str:
    """What a file of the system says, or ""."""
    try:
        return file.read_text().strip("\0\n ")
    except (OSError, UnicodeDecodeError):
        return ""
