"""Comparison of two results of the same computation.

The rounding of a floating-point sum depends on the order of its terms. Kernels choose that order by instruction set,
thread count, batch size and the alignment of their arrays, so a network can give slightly different results for the
same input, even within one process. Bit equality is right for copies, integers, seeded noise, and for one session
that receives the same input twice. Everything else is compared with the tolerances of this module.

The tolerances are ten times what was measured between two libraries (ONNX Runtime and OpenVINO) on the shipped model:
7.5e-6 on images after four moves, 6.2e-6 on latents. A wrong seed, label or level changes them by more than 0.1.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

ROUNDING = 1e-4  # of images and latents, absolute; of other arrays, relative L2
ROUNDINGS = {  # precision of the graph → of images and latents; 16 and 8 bits round a value between two numbers to either side
    "fp32": ROUNDING,
    "fp16": 1e-3,
    "int8": 5e-2,
}


def relative_l2(actual: Any, expected: Any) -> float:
    """|actual - expected| / |expected|, of arrays or tensors."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    return float(np.linalg.norm(actual - expected) / np.linalg.norm(expected))


def weights_apart(actual: Iterable[Any], expected: Iterable[Any]) -> float:
    """The relative L2 distance of two networks' weights, all tensors as one vector."""
    a, b = (
        np.concatenate([np.asarray(tensor).ravel() for tensor in tensors]) for tensors in (actual, expected)
    )
    return relative_l2(a, b)


def assert_images_agree(actual: Any, expected: Any, precision: str = "fp32") -> None:
    """Images or latents of one model, whose values are about 1. precision: of the graphs that made them."""
    np.testing.assert_allclose(np.asarray(actual), np.asarray(expected), rtol=0, atol=ROUNDINGS[precision])


def assert_pixels_agree(actual: Any, expected: Any) -> None:
    """uint8 pixels of images that agree: a value halfway between two pixels may round either way."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.dtype == expected.dtype == np.uint8 and actual.shape == expected.shape
    assert np.abs(actual.astype(int) - expected).max() <= 1


def assert_pixels_show(pixels: Any, images: Any) -> None:
    """uint8 pixels are the nearest to the values of images in [-1, 1], which may differ by rounding."""
    values = (np.asarray(images, np.float64) + 1) * 127.5
    pixels = np.asarray(pixels)
    assert pixels.dtype == np.uint8 and pixels.shape == values.shape
    assert np.abs(pixels - values).max() <= 0.5 + 127.5 * ROUNDING
