"""Measure the share of the processors' time that other processes use."""

from __future__ import annotations

import os
import time
from pathlib import Path

from .system_files import ROOT, read_text


class OtherProcesses:
    """The processor time that other processes use, measured from the creation of this object.

    Other virtual machines on the same host are included.
    """

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._own_seconds = time.process_time()
        self._busy_seconds = busy_seconds()

    def share(self) -> float | None:
        """Return their share of the time of all processors since the start, 0 to 1; None if it is unknown."""
        busy = busy_seconds()
        if self._busy_seconds is None or busy is None:
            return None
        available = (time.perf_counter() - self._started) * (os.cpu_count() or 1)
        own = time.process_time() - self._own_seconds
        return min(max((busy - self._busy_seconds - own) / available, 0.0), 1.0)


def busy_seconds(root: Path = ROOT) -> float | None:
    """Return the processor seconds that all processes have used since the machine was started.

    Time that the host gave to other virtual machines is included. None if /proc/stat is not readable.
    """
    words = read_text(root / "proc/stat").partition("\n")[0].split()
    if len(words) < 9 or words[0] != "cpu":
        return None
    user, nice, system, _idle, _waiting, irq, softirq, steal = map(int, words[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
