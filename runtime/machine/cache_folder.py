"""The cache folder, for data that this package can create again.

It is $BCM_EDGE_CACHE_DIR, otherwise $XDG_CACHE_HOME/bcm-edge, otherwise ~/.cache/bcm-edge. Its content can be
deleted whenever no command runs.
"""

from __future__ import annotations

import os
from pathlib import Path

from ...errors import OutputError

CACHE_FIX = "set BCM_EDGE_CACHE_DIR to a folder of your own"


def cache_directory() -> Path:
    """Return the absolute path of the cache folder. The folder need not exist.

    Raises OutputError if there is no home folder, or if the path is relative to a deleted folder.
    """
    chosen = os.environ.get("BCM_EDGE_CACHE_DIR")
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    try:
        if chosen:
            return Path(chosen).expanduser().absolute()
        if base.is_absolute():  # the XDG specification requires that relative paths are ignored
            return base / "bcm-edge"
        if Path(os.environ.get("HOME", "/")).is_absolute():
            return Path.home() / ".cache" / "bcm-edge"
        problem = f"HOME is {os.environ['HOME']!r}, which is not an absolute path"
    except RuntimeError:
        if chosen:
            problem = f"BCM_EDGE_CACHE_DIR is {chosen!r}, and there is no such home folder"
        else:
            problem = "this user has no home folder"
    except OSError:
        problem = f"BCM_EDGE_CACHE_DIR is {chosen!r}, a relative path, and the current folder was deleted"
    raise OutputError(f"{problem}; {CACHE_FIX}")
