"""The folder in which this package keeps what it can make again.

$BCM_EDGE_CACHE_DIR, else $XDG_CACHE_HOME/bcm-edge, else ~/.cache/bcm-edge. Everything in it can be deleted while no command runs.
"""

from __future__ import annotations

import os
from pathlib import Path

from ...errors import OutputError

CACHE_FIX = "set BCM_EDGE_CACHE_DIR to a folder of your own"


def cache_directory() -> Path:
    """Where this package keeps what it can make again: an absolute path, of a folder that need not exist.

    Raises OutputError if no such folder can be named: an unknown home folder, or a relative path in a current folder that was deleted.
    """
    chosen = os.environ.get("BCM_EDGE_CACHE_DIR")
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    try:
        if chosen:
            return Path(chosen).expanduser().absolute()
        if base.is_absolute():  # its specification has relative ones ignored
            return base / "bcm-edge"
        if Path(os.environ.get("HOME", "/")).is_absolute():
            return Path.home() / ".cache" / "bcm-edge"
        problem = f"HOME is {os.environ['HOME']!r}, which is not an absolute path"
    except RuntimeError:
        problem = (
            f"BCM_EDGE_CACHE_DIR is {chosen!r}, and there is no such home folder"
            if chosen
            else "this user has no home folder"
        )
    except OSError:
        problem = f"BCM_EDGE_CACHE_DIR is {chosen!r}, a relative path, and the current folder was deleted"
    raise OutputError(f"{problem}; {CACHE_FIX}")
