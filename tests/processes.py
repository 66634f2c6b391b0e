"""Child processes of tests."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any


@contextmanager
def child(command: Sequence[str], **options: Any) -> Iterator[subprocess.Popen[str]]:
    """A running process, killed at the end of the block if it has not ended by then.

    It acts on Ctrl-C even if this process ignores SIGINT, as the background jobs of a shell do: a child inherits that
    a signal is ignored, but no handler.
    """
    inherited = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        process = subprocess.Popen(command, text=True, **options)
    finally:
        signal.signal(signal.SIGINT, inherited)
    with process:  # at its end, the pipes are closed and the process is waited for
        try:
            yield process
        finally:
            process.kill()
