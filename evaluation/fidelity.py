"""How like its original an image is: PSNR and SSIM, per image, of pixels as they are stored.

Images are float32 [N, C, H, W] in [-1, 1]; both sides are clipped, rounded to uint8 and compared in [0, 1], as
`runtime.images.mean_squared_error` does.
"""

from __future__ import annotations

import numpy as np
from skimage.metrics import structural_similarity

from ..errors import ImageError
from ..runtime.pixels import mean_squared_error, to_uint8

SIGMA = 1.5  # pixels, of the Gaussian window
GAUSSIAN_WINDOW = 11  # pixels it reaches over


def psnr(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Peak signal-to-noise ratio in dB, 10 log10(1 / mse): float64 [N], infinite where all pixels are equal. Raises ImageError."""
    _check_shapes(a, b)
    with np.errstate(divide="ignore"):
        return -10 * np.log10(mean_squared_error(a, b))


def ssim(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Structural similarity (Wang et al. 2004): float64 [N], at most 1, and 1 where all pixels are equal. Raises ImageError.

    scikit-image's, per channel and averaged over the channels, K1 = 0.01, K2 = 0.03, L = 1, (co)variances divided by the number of
    pixels. From 11 pixels of height and width on with the paper's window, a Gaussian of σ = 1.5 over 11×11 pixels; below with a uniform
    square window of the largest odd width that fits (7 for 8×8), which is another measure: do not compare across. Averaged over the
    windows that lie wholly within the image.
    """
    _check_shapes(a, b)
    side = min(a.shape[2:])
    window = (
        {"gaussian_weights": True, "sigma": SIGMA}
        if side >= GAUSSIAN_WINDOW
        else {"win_size": side - 1 + side % 2}
    )
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
            f"images of shape {list(a.shape)} cannot be compared with those of shape {list(b.shape)}, pixel by pixel"
        )
