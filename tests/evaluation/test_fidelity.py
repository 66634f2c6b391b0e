"""PSNR and SSIM of pairs of images."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest
from digit_images import noisy

from bcm_edge.errors import ImageError
from bcm_edge.runtime.pixels import from_uint8


@pytest.fixture(scope="module")
def fidelity() -> ModuleType:
    """The module with PSNR and SSIM, which needs scikit-image."""
    pytest.importorskip("skimage", reason="scikit-image is not installed; pip install '.[evaluate]'")
    from bcm_edge.evaluation import fidelity

    return fidelity


def test_psnr_of_pixels_that_differ_by_a_fifth(fidelity: ModuleType):
    a = from_uint8(np.full((2, 3, 4, 4), 100, np.uint8))
    b = a.copy()
    b[0] = from_uint8(np.full((3, 4, 4), 151, np.uint8))
    assert fidelity.psnr(a, b).tolist() == [pytest.approx(13.9794, abs=1e-4), np.inf]


def test_psnr_compares_rounded_pixels(fidelity: ModuleType):
    """A difference that rounding to uint8 removes does not count."""
    a = from_uint8(np.full((1, 1, 4, 4), 100, np.uint8))
    assert fidelity.psnr(a, a + np.float32(0.3 / 127.5)).tolist() == [np.inf]
    assert np.isfinite(fidelity.psnr(a, a + np.float32(0.7 / 127.5))).all()
    assert fidelity.psnr(np.full_like(a, 1), np.full_like(a, 3)).tolist() == [np.inf]


@pytest.mark.parametrize("shape", [(5, 1, 8, 8), (5, 3, 28, 28), (5, 1, 16, 12), (5, 1, 2, 2)])
def test_ssim_of_equal_images_is_1_and_falls_with_noise(fidelity: ModuleType, shape: tuple[int, ...]):
    images = np.random.default_rng(0).uniform(-0.8, 0.8, shape).astype(np.float32)
    by_strength = [fidelity.ssim(images, noisy(images, strength)) for strength in (0, 0.1, 0.3, 0.6)]
    assert by_strength[0] == pytest.approx(np.ones(5))
    means = [values.mean() for values in by_strength]
    assert means == sorted(means, reverse=True)
    assert means[3] < 0.9


def test_ssim_of_two_constant_images(fidelity: ModuleType):
    """Without variance, SSIM is (2 · 0.2 · 0.4 + 0.01²) / (0.2² + 0.4² + 0.01²)."""
    a, b = (from_uint8(np.full((1, 3, 16, 16), value, np.uint8)) for value in (51, 102))
    assert fidelity.ssim(a, b) == pytest.approx([0.1601 / 0.2001])


@pytest.mark.parametrize(("size", "window"), [(8, 7), (10, 9), (11, 11)])
def test_ssim_windows(fidelity: ModuleType, size: int, window: int):
    """Compare with equation 13 of Wang et al., computed for every window within the image.

    Windows are uniform below 11 pixels, and a Gaussian of σ = 1.5 otherwise.
    """
    x, y = np.random.default_rng(0).integers(0, 256, (2, size, size)).astype(np.uint8)
    line = np.ones(window)
    if window == 11:
        line = np.exp(-0.5 * (np.arange(window) - window // 2) ** 2 / 1.5**2)
    weights = np.outer(line, line) / line.sum() ** 2
    values = []
    for top in range(size - window + 1):
        for left in range(size - window + 1):
            a, b = (image[top : top + window, left : left + window] / 255 for image in (x, y))
            mean_a, mean_b = (weights * a).sum(), (weights * b).sum()
            variances = (weights * (a - mean_a) ** 2).sum() + (weights * (b - mean_b) ** 2).sum()
            covariance = (weights * (a - mean_a) * (b - mean_b)).sum()
            light = (2 * mean_a * mean_b + 0.01**2) / (mean_a**2 + mean_b**2 + 0.01**2)
            values.append(light * (2 * covariance + 0.03**2) / (variances + 0.03**2))
    ssim = fidelity.ssim(from_uint8(x)[None, None], from_uint8(y)[None, None])
    assert ssim == pytest.approx([np.mean(values)], rel=1e-9)


def test_images_of_different_shapes_are_refused(fidelity: ModuleType):
    a, b = np.zeros((2, 1, 8, 8), np.float32), np.zeros((1, 1, 8, 8), np.float32)
    for measure in (fidelity.psnr, fidelity.ssim):
        with pytest.raises(ImageError, match="pixel by pixel"):
            measure(a, b)
