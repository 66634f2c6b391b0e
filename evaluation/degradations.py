"""What restoration is tested with: compression, blur and noise. Images float32 [N, C, H, W] in [-1, 1] → the same."""

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
    """The images through Pillow's JPEG, quality 1 to 95, colours at half resolution (4:2:0). Raises ImageError unless C is 1 or 3."""
    if images.shape[1] not in (1, 3):
        raise ImageError(f"images of {images.shape[1]} channels: JPEG has 1 or 3")
    return from_uint8(np.stack([_through_jpeg(pixels, quality) for pixels in to_uint8(images)]))


def blur(images: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur of σ pixels, the border pixels going on for ever."""
    return gaussian_filter(images, (0, 0, sigma, sigma), mode="nearest").astype(np.float32)


def noise(images: np.ndarray, sigma: float, seeds: Sequence[int]) -> np.ndarray:
    """Gaussian noise of std σ, one seed per image, clipped to [-1, 1]."""
    return np.clip(images + np.float32(sigma) * standard_normal(seeds, images.shape[1:], DAMAGE_DRAW), -1, 1)


@dataclass(frozen=True)
class Degradation:
    """apply(images, seeds): float32 [N, C, H, W] in [-1, 1] → the same; seeds: one per image, for those that are random."""

    name: str
    apply: Callable[[np.ndarray, Sequence[int]], np.ndarray]


DEGRADATIONS = (
    *(
        Degradation(f"JPEG {quality}", lambda images, _, q=quality: jpeg(images, q))
        for quality in (10, 20, 30)
    ),
    Degradation("blur 0.7", lambda images, _: blur(images, 0.7)),
    *(
        Degradation(f"noise {sigma}", lambda images, seeds, s=sigma: noise(images, s, seeds))
        for sigma in (0.3, 0.6)
    ),
)


def _through_jpeg(pixels: np.ndarray, quality: int) -> np.ndarray:
    """uint8 [C, H, W] → the same."""
    file = io.BytesIO()
    Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)).save(
        file, "JPEG", quality=quality, subsampling="4:2:0"
    )
    decoded = np.asarray(Image.open(file))
    return decoded[None] if len(pixels) == 1 else decoded.transpose(2, 0, 1)
