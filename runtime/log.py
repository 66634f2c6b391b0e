"""The log of this package: the logger `bcm_edge` of Python's logging. Silent until a program adds a handler.

    import logging
    logging.basicConfig(level=logging.INFO)     # from now on, write the log to stderr

INFO: facts for the report of a problem: the bundle, the selected backend and the reason, cache entries,
durations. ERROR: why a command failed, with the traceback.

The command line writes the log with --verbose and --log-file (commands/log.py).
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

log = logging.getLogger("bcm_edge")

# Without a handler, Python would print errors to stderr.
log.addHandler(logging.NullHandler())


@contextmanager
def timed(subject: str) -> Iterator[None]:
    """Log how long the block took, also if it ends with an error. subject: the beginning of the message."""
    started = time.perf_counter()
    try:
        yield
    finally:
        log.info("%s: %.3f s", subject, time.perf_counter() - started)


def home_folder() -> str:
    """Return the home folder of the user, or "" if there is none."""
    try:
        return str(Path.home())
    except RuntimeError:
        return ""


def without_home(text: str, home: str | None = None) -> str:
    """Return the text with ~ in place of the home folder, whose path usually contains the name of the user.

    home: by default `home_folder()`.
    """
    home = home_folder() if home is None else home
    if len(home) < 2:
        return text
    return re.sub(rf"(?<![\w.-]){re.escape(home)}(?![\w.-])", "~", text)
