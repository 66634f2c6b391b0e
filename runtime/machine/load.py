"""How much of the processors other processes take."""

from __future__ import annotations

import os
import time
from pathlib import Path

from .system_files import ROOT, read_text


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


def busy_seconds(root: Path = ROOT) -> float | None:
    """Processor seconds since the start of the machine in which some process ran, or a neighbour of this virtual machine."""
    words = read_text(root / "proc/stat").partition("\n")[0].split()
    if len(words) < 9 or words[0] != "cpu":
        return None
    user, nice, system, _idle, _waiting, irq, softirq, steal = map(int, words[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
