"""PSNR and SSIM: how similar each image is to its original.

Images are float32 [N, C, H, W] in [-1, 1]. Both sides are clipped, rounded to uint8 and compared in [0, 1],
as in `mean_squared_error` of runtime/pixels.py.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from skimage.metrics import structural_similarity

from ..errors import ImageError
from ..runtime.pixels import mean_squared_error, to_uint8

SIGMA = 1.5  # pixels, standard deviation of the Gaussian window
GAUSSIAN_WINDOW = 11  # pixels, side of the Gaussian window


def psnr(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the peak signal-to-noise ratio of each pair in dB, 10 log10(1 / mse).

    float64 [N]; infinite if all pixels are equal. Raises ImageError if the shapes differ.
    """
    _check_shapes(a, b)
    with np.errstate(divide="ignore"):
        return -10 * np.log10(mean_squared_error(a, b))


def ssim(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the structural similarity (Wang et al. 2004) of each pair.

    float64 [N], at most 1; 1 if all pixels are equal. Raises ImageError if the shapes differ.

    The implementation is scikit-image's, averaged over the channels and over the windows that lie completely
    inside the image: K1 = 0.01, K2 = 0.03, L = 1, (co)variances divided by the number of pixels. Images of at
    least 11×11 pixels use the window of the paper, a Gaussian of σ = 1.5 over 11×11 pixels. Smaller images
    use a uniform square window of the largest odd side that fits (7 for 8×8). These are two measures; do not
    compare one with the other.
    """
    _check_shapes(a, b)
    side = min(a.shape[2:])
    window: dict[str, Any] = {"win_size": side - 1 + side % 2}
    if side >= GAUSSIAN_WINDOW:
        window = {"gaussian_weights": True, "sigma": SIGMA}
    pairs = zip(to_uint8(a) / 255, to_uint8(b) / 255, strict=True)
    return np.array(
        [
            structural_similarity(x, y, data_range=1.0, channel_axis=0, use_sample_covariance=False, **window)
            for x, y in pairs
        ]
    )


def _check_shapes(a: np.ndarray, b: np.ndarray) -> None:
    if a.shape != b.shape:
        raise ImageError(
            f"images of shape {list(a.shape)} cannot be compared pixel by pixel with images of shape"
            f" {list(b.shape)}"
        )
