"""Wall-clock limits of benchmarks/gpu.py: the time budget, and blocks and processes that end in time."""

from __future__ import annotations

import ctypes
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass


class TooLong(BaseException):
    """The time of a block is over. torch's compiler would catch an Exception as a failure of its own."""


@dataclass(frozen=True)
class Budget:
    """The time that a call may take.

    total: seconds of the whole call, math.inf without a limit. end: when it is over, in time.monotonic().
    part: the seconds that one batch size has of it, or None.
    """

    total: float
    end: float
    part: float | None = None

    @classmethod
    def start(cls, total: float) -> Budget:
        """Return a budget that begins now."""
        return cls(total, time.monotonic() + total)

    def left(self) -> float:
        """Return the seconds that are left, at least 0."""
        return max(self.end - time.monotonic(), 0.0)

    def share(self, parts: int) -> Budget:
        """Return the seconds of one of several equal parts of the remaining time."""
        part = self.left() / parts
        return Budget(self.total, time.monotonic() + part, part)

    @property
    def reason(self) -> str:
        """The reason to report for work that was not run because the time budget was used up."""
        part = "" if self.part is None else f" (this batch size had {self.part:.0f} s)"
        return f"the time budget of {self.total:g} s was used up{part}"


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Raise TooLong in the block after this time. C++ code is not interrupted before it returns to Python."""

    def ring(*_: object) -> None:
        raise TooLong

    if math.isinf(seconds):
        yield
        return
    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds, 5.0)  # again: Python drops what is raised in a destructor
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def run(command: Sequence[str], seconds: float) -> str | None:
    """Run a process; returns None, or why it failed: its last line of output, or how it ended.

    The process leads a group of its own, and the rest of the group is killed when it ends. Raises
    subprocess.TimeoutExpired if it does not end in time; the whole group is killed then.
    """
    with tempfile.TemporaryFile("w+") as output:  # not a pipe, which its own children could keep open
        process = subprocess.Popen(command, stdout=output, start_new_session=True)
        try:
            code = process.wait(None if math.isinf(seconds) else seconds)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            with suppress(subprocess.TimeoutExpired):
                process.wait(5)  # a driver may hold a killed process
        output.seek(0)
        lines = output.read().strip().splitlines()
    if code < 0:
        return f"its process was killed by {signal.Signals(-code).name}"
    if code:
        return lines[-1] if lines else f"its process ended with exit code {code}"
    return None


def end_with_parent() -> None:
    """Have Linux kill this process when the process that started it ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
