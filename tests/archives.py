"""Reading and writing npz archives as mappings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np


def write_npz(file: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write an uncompressed archive.

    numpy's annotations match the values of an unpacked mapping with `allow_pickle`, so the mapping has the
    type of any keywords here.
    """
    keywords: dict[str, Any] = dict(arrays)
    np.savez(file, **keywords)


def read_npz(file: Path) -> dict[str, np.ndarray]:
    """Return all arrays of an archive. Pickled objects are refused."""
    with np.load(file, allow_pickle=False) as archive:
        return dict(archive)
