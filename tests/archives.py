"""Writing npz archives whose arrays are collected in a mapping."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np


def write_npz(file: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write an uncompressed archive. numpy's annotations would match an unpacked mapping with `allow_pickle`."""
    keywords: dict[str, Any] = dict(arrays)
    np.savez(file, **keywords)
