"""Images in [0, 1] for the digits model, which takes [-1, 1]."""

from __future__ import annotations

import numpy as np

SHAPE = (1, 8, 8)


def unit_images(n: int = 4) -> np.ndarray:
    """The same n random images each time, float32 [n, 1, 8, 8]."""
    return np.random.default_rng(0).random((n, *SHAPE), dtype=np.float32)
