"""The degradations that restoration is tested with: JPEG compression, blur and noise.

Each takes and returns images, float32 [N, C, H, W] in [-1, 1].
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

from ..errors import ImageError
from ..runtime.noise import DAMAGE_DRAW, standard_normal
from ..runtime.pixels import from_uint8, to_uint8


def jpeg(images: np.ndarray, quality: int) -> np.ndarray:
    """Compress and decompress the images with Pillow's JPEG.

    quality: 1 to 95; colours have half of the resolution (4:2:0). Raises ImageError unless C is 1 or 3.
    """
    if images.shape[1] not in (1, 3):
        raise ImageError(f"JPEG needs images of 1 or 3 channels, got {images.shape[1]}")
    return from_uint8(np.stack([_through_jpeg(pixels, quality) for pixels in to_uint8(images)]))


def blur(images: np.ndarray, sigma: float) -> np.ndarray:
    """Blur the images with a Gaussian of σ pixels. The pixels of the border are repeated beyond it."""
    return gaussian_filter(images, (0, 0, sigma, sigma), mode="nearest").astype(np.float32)


def noise(images: np.ndarray, sigma: float, seeds: Sequence[int]) -> np.ndarray:
    """Add Gaussian noise of standard deviation σ, one seed per image, and clip to [-1, 1]."""
    added = np.float32(sigma) * standard_normal(seeds, images.shape[1:], DAMAGE_DRAW)
    return np.clip(images + added, -1, 1)


@dataclass(frozen=True)
class Degradation:
    """A degradation with its name in reports."""

    name: str
    # (images, seeds) → images; the seeds, one per image, are for noise
    apply: Callable[[np.ndarray, Sequence[int]], np.ndarray]


def _jpeg(quality: int) -> Degradation:
    return Degradation(f"JPEG {quality}", lambda images, _: jpeg(images, quality))


def _blur(sigma: float) -> Degradation:
    return Degradation(f"blur {sigma}", lambda images, _: blur(images, sigma))


def _noise(sigma: float) -> Degradation:
    return Degradation(f"noise {sigma}", lambda images, seeds: noise(images, sigma, seeds))


DEGRADATIONS = (_jpeg(10), _jpeg(20), _jpeg(30), _blur(0.7), _noise(0.3), _noise(0.6))


def _through_jpeg(pixels: np.ndarray, quality: int) -> np.ndarray:
    """Compress and decompress one image, uint8 [C, H, W]."""
    grey = len(pixels) == 1
    picture = Image.fromarray(pixels[0] if grey else pixels.transpose(1, 2, 0))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality, subsampling="4:2:0")
    decoded = np.asarray(Image.open(file))
    return decoded[None] if grey else decoded.transpose(2, 0, 1)
