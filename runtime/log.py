"""The log of this package: the logger `bcm_edge` of Python's logging, which says nothing until a program gives it a handler.

    import logging
    logging.basicConfig(level=logging.INFO)     # everything that is logged from here on, on stderr

INFO: what a report of a problem needs (the bundle, the backend and why, cache entries, times). ERROR: why a command failed, with the
traceback. The command line writes it with --verbose and --log-file (commands/log.py).
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

log = logging.getLogger("bcm_edge")

log.addHandler(logging.NullHandler())  # or Python would print errors on stderr where no handler is set


@contextmanager
def timed(what: str) -> Iterator[None]:
    """Log how long the block took, also where it ends with an error. what: the subject of the message."""
    started = time.perf_counter()
    try:
        yield
    finally:
        log.info("%s: %.3f s", what, time.perf_counter() - started)


def home_folder() -> str:
    """The user's home folder, "" without one."""
    try:
        return str(Path.home())
    except RuntimeError:
        return ""


def without_home(text: str, home: str | None = None) -> str:
    """The text with ~ in place of the home folder, which has the user's name in it. home: by default that of now."""
    home = home_folder() if home is None else home
    return text if len(home) < 2 else re.sub(rf"(?<![\w.-]){re.escape(home)}(?![\w.-])", "~", text)
