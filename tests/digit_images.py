"""Digits as arrays, and digits with noise."""

from __future__ import annotations

import numpy as np

from bcm_edge.training.data import load_digits


def labelled_digits(part: str, n: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return the first n images of a part of the digits, float32 [n, 1, 8, 8], and their labels."""
    data = load_digits(part)
    assert data.labels is not None
    return data.images.numpy()[:n], data.labels.numpy()[:n]


def noisy(images: np.ndarray, strength: float) -> np.ndarray:
    """Return images with Gaussian noise of a standard deviation, the same noise in every call."""
    noise = np.random.default_rng(1).standard_normal(images.shape).astype(np.float32)
    return images + np.float32(strength) * noise
