"""Child processes that a test starts."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any


@contextmanager
def child(command: Sequence[str], **options: Any) -> Iterator[subprocess.Popen[str]]:
    """Run a process during a block. At the end of the block it is killed if it still runs.

    The process reacts to Ctrl-C even if this one ignores SIGINT, as background jobs of a shell do. A child
    process inherits that a signal is ignored, but it inherits no handler.
    """
    inherited = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        process = subprocess.Popen(command, text=True, **options)
    finally:
        signal.signal(signal.SIGINT, inherited)
    with process:  # closes the pipes at its end and waits for the process
        try:
            yield process
        finally:
            process.kill()
