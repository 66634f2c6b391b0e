"""The time from the start of a process to its first images, and the peak memory of the process."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from ..machine.processes import python_command
from ..machine.system_files import ROOT, read_lines
from ..machine.temporary import temporary_text

STARTS = 3  # processes per variant; their median counts

PROLOGUE = """
from bcm_edge.runtime.checks.benchmark import player
from bcm_edge.runtime.checks.starts import peak_mb
from bcm_edge.runtime.schedule import parse_schedule
"""
FIRST_IMAGE = """
bundle, backend, precision, threads, device, schedule, batch = arguments
placed = {"threads": int(threads) if threads else None, "device": device or None}
bcm = package.load(bundle, backend, precision=precision, **placed)
player(bcm.backend, parse_schedule(schedule), int(batch))()
print(peak_mb(), flush=True)
"""


@dataclass(frozen=True)
class Start:
    """A process from its start to its first images."""

    # Seconds until the images existed; NaN if the process failed.
    seconds: float
    # Peak resident memory in MB; NaN if the process failed.
    peak_mb: float
    # Why the process failed, or "".
    problem: str = ""


def start_command(code: str, *arguments: object) -> list[str]:
    """Return the command of a process that runs PROLOGUE and `code`.

    The code has to print peak_mb() as soon as its first images exist.
    """
    return python_command(PROLOGUE + code, *arguments)


def first_images(commands: Sequence[list[str]]) -> list[Start]:
    """Run each command STARTS times, in turn, and return the medians.

    The files that the commands read must have been read before, so that they are in the page cache.
    """
    rounds = [[_start(command) for command in commands] for _ in range(STARTS)]
    return [_median(starts) for starts in zip(*rounds, strict=True)]


def peak_mb() -> float:
    """Return the peak resident memory of this process in MB.

    On Linux it is read from /proc, because getrusage starts with the memory of the parent process.
    """
    for line in read_lines(ROOT / "proc/self/status"):
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024 / 1e6
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def _start(command: list[str]) -> Start:
    started = perf_counter()
    with (
        temporary_text() as error_file,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=error_file, text=True) as process,
    ):
        assert process.stdout
        line = process.stdout.readline()  # the images exist; what follows is the end of the process
        seconds = perf_counter() - started
        process.wait()
        error_file.seek(0)
        messages = error_file.read().strip().splitlines()
    if process.returncode or not line:
        message = messages[-1] if messages else "no message"
        problem = f"the process ended with exit code {process.returncode}: {message}"
        return Start(math.nan, math.nan, problem)
    return Start(seconds, float(line))


def _median(starts: Sequence[Start]) -> Start:
    problems = [start.problem for start in starts if start.problem]
    return Start(
        seconds=float(np.median([start.seconds for start in starts])),
        peak_mb=float(np.median([start.peak_mb for start in starts])),
        problem=problems[0] if problems else "",
    )
