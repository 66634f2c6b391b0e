"""Images as float32 in [-1, 1] and as pixels, uint8: x = pixel / 127.5 - 1, and back by rounding."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import ImageError, InputError
from .wording import argument

# The range of float images: (-1, 1), (0, 1), or None if it is not specified.
ValueRange = tuple[float, float] | None
SIGNED, UNIT = (-1.0, 1.0), (0.0, 1.0)
VALUE_RANGES = {
    "-1,1": SIGNED,
    "0,1": UNIT,
}  # as users write them on the command line and in requests to servers
TOLERANCE = 0.001  # how far a value may lie outside its range, because of rounding


def from_uint8(pixels: np.ndarray) -> np.ndarray:
    """Return uint8 pixels as float32 in [-1, 1]: pixel / 127.5 - 1."""
    return pixels.astype(np.float32) / np.float32(127.5) - 1


def in_signed_range(images: np.ndarray, where: str, value_range: ValueRange = None) -> np.ndarray:
    """Return float images as float32 in [-1, 1]. Rounding errors of at most TOLERANCE are clipped.

    where: the beginning of messages, for example "images". value_range: the range of the images, (-1, 1),
    or (0, 1), which is converted. None expects [-1, 1] and refuses arrays without a value below 0: they
    most likely lie in [0, 1] and would give pale images.

    Raises ImageError for values outside the range, NaN and infinity.
    """
    low, high = float(images.min()), float(images.max())
    if not np.isfinite([low, high]).all():
        raise ImageError(f"{where} contain NaN or infinity; all values must be finite")
    least, most = value_range or SIGNED
    if low < least - TOLERANCE or high > most + TOLERANCE:
        seem_pixels = low >= 0 and 1 < high <= 255
        hint = "; convert pixels from 0 to 255 with images / 127.5 - 1" if seem_pixels else ""
        raise ImageError(
            f"{where} must lie in [{least:g}, {most:g}]; these go from {low:.3g} to {high:.3g}{hint}"
        )
    if value_range is None and low >= -TOLERANCE:
        ways = argument("value_range=(0, 1) or (-1, 1) of bcm_edge.load", "--value-range 0,1 or -1,1")
        raise ImageError(
            f"{where} have no value below 0, so they seem to lie in [0, 1] instead of [-1, 1]; "
            f"convert them with images * 2 - 1, or specify the range: {ways}"
        )
    signed = images * 2 - 1 if value_range == UNIT else images
    return np.clip(signed, -1, 1).astype(np.float32)


def from_pixels(pixels: np.ndarray, where: str, value_range: ValueRange = None) -> np.ndarray:
    """Return uint8 pixels as float32 in [-1, 1].

    where: the beginning of messages. Raises ImageError if all pixels are 0 or 1 and no value_range is
    specified.
    """
    if value_range is None and pixels.max() == 1:
        raise ImageError(
            f"{where} have no value above 1, so they would be black; "
            "convert 0 and 1 to pixels with images * 255"
        )
    return from_uint8(pixels)


def check_value_range(value_range: Sequence[float] | None) -> ValueRange:
    """Return the range as a pair of floats, or None. Raises InputError unless it is (-1, 1) or (0, 1)."""
    if value_range is None:
        return None
    try:
        pair = tuple(map(float, value_range)) if np.shape(value_range) == (2,) else ()
    except (TypeError, ValueError):  # of texts
        pair = ()
    if pair not in (SIGNED, UNIT):
        raise InputError(f"value_range must be (-1, 1) or (0, 1), not {value_range!r}")
    return SIGNED if pair == SIGNED else UNIT


def parse_value_range(text: str) -> ValueRange:
    """Return (-1, 1) for "-1,1" and (0, 1) for "0,1". Raises InputError for other texts."""
    if text not in VALUE_RANGES:
        raise InputError(f"unknown value_range {text!r}; give {' or '.join(VALUE_RANGES)}")
    return VALUE_RANGES[text]


def to_uint8(images: np.ndarray) -> np.ndarray:
    """Return float images as uint8 pixels: clipped to [-1, 1], and rounded to nearest.

    uint8 images are returned unchanged.
    """
    if images.dtype == np.uint8:
        return images
    return np.rint((np.clip(images, -1, 1) + 1) * 127.5).astype(np.uint8)


def mean_squared_error(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the reconstruction error of each image, float64 [N]: the mean of (a/255 - b/255)² over pixels.

    This is the measure of the authors of BCM with one difference: pixels are rounded to nearest here, and
    truncated there.
    """
    difference = (to_uint8(a).astype(np.float64) - to_uint8(b)) / 255
    return np.square(difference).reshape(len(a), -1).mean(axis=1)
