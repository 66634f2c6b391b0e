"""Ctrl-C (SIGINT) and SIGTERM during a run: the current step is completed, then the run stops."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass
class Stop:
    """The request to stop."""

    # The number of the signal that arrived, or None.
    signal: int | None = None


@contextmanager
def first_signal_noted(ignore_others: bool = False) -> Iterator[Stop]:
    """Note the first signal during a block, which checks `signal` of the yielded object between steps.

    A second signal has its usual effect: Ctrl-C raises KeyboardInterrupt at once, SIGTERM ends the process.
    ignore_others: it has no effect, for a process that gets each signal twice, also from its launcher.
    Signals that the process ignores stay ignored. Outside the main thread, where Python allows no handlers,
    nothing is changed.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    before = {number: handler for number, handler in before.items() if handler not in (signal.SIG_IGN, None)}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def note(number: int, frame: FrameType | None) -> None:
        stop.signal = stop.signal or number
        if not ignore_others:
            restore()

    for number in before:
        signal.signal(number, note)
    try:
        yield stop
    finally:
        restore()
