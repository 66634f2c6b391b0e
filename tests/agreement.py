"""Comparison of two results of the same computation.

The rounding of a floating-point sum depends on the order of its terms. Kernels choose that order by
instruction set, thread count, batch size and the alignment of their arrays. So a network can give slightly
different results for the same input, even within one process. Bit equality is the right test for copies,
integers, seeded noise, and one session that receives the same input twice. Everything else is compared with
the tolerances of this module.

The tolerances are ten times what was measured between two libraries (ONNX Runtime and OpenVINO) on the
shipped model: 7.5e-6 on images after four moves, 6.2e-6 on latents. A wrong seed, label or level changes
them by more than 0.1.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

ROUNDING = 1e-4  # absolute for images and latents, relative L2 for other arrays
# Absolute tolerance of images and latents, by the precision of the graphs. Where a value lies between two
# numbers of 16 or 8 bits, it may be rounded to either of them.
ROUNDINGS = {"fp32": ROUNDING, "fp16": 1e-3, "int8": 5e-2}


def relative_l2(actual: Any, expected: Any) -> float:
    """Return |actual - expected| / |expected| of two arrays or tensors."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    return float(np.linalg.norm(actual - expected) / np.linalg.norm(expected))


def weights_apart(actual: Iterable[Any], expected: Iterable[Any]) -> float:
    """Return the relative L2 distance of the weights of two networks, each taken as one vector."""
    return relative_l2(_as_vector(actual), _as_vector(expected))


def assert_images_agree(actual: Any, expected: Any, precision: str = "fp32") -> None:
    """Check images or latents of one model, whose values are about 1.

    precision: the precision of the graphs that computed them.
    """
    np.testing.assert_allclose(np.asarray(actual), np.asarray(expected), rtol=0, atol=ROUNDINGS[precision])


def assert_pixels_agree(actual: Any, expected: Any) -> None:
    """Check that uint8 pixels differ by at most 1.

    A value halfway between two pixels may be rounded to either.
    """
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.dtype == expected.dtype == np.uint8 and actual.shape == expected.shape
    assert np.abs(actual.astype(int) - expected).max() <= 1


def assert_pixels_show(pixels: Any, images: Any) -> None:
    """Check that uint8 pixels are those nearest to images in [-1, 1], which may differ by rounding."""
    values = (np.asarray(images, np.float64) + 1) * 127.5
    pixels = np.asarray(pixels)
    assert pixels.dtype == np.uint8 and pixels.shape == values.shape
    assert np.abs(pixels - values).max() <= 0.5 + 127.5 * ROUNDING


def _as_vector(tensors: Iterable[Any]) -> np.ndarray:
    return np.concatenate([np.asarray(tensor).ravel() for tensor in tensors])
