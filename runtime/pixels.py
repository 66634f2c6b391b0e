"""Images as numbers: float32 in [-1, 1] and pixels, uint8. x = pixel / 127.5 - 1, and back by rounding."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import ImageError, InputError

ValueRange = (
    tuple[float, float] | None
)  # of float images: (-1, 1), (0, 1), or None where it has to be found out
SIGNED, UNIT = (-1.0, 1.0), (0.0, 1.0)
VALUE_RANGES = {"-1,1": SIGNED, "0,1": UNIT}  # as the command line and servers write them
TOLERANCE = 0.001  # by which rounding may lead out of a range


def from_uint8(pixels: np.ndarray) -> np.ndarray:
    """uint8 → float32 in [-1, 1]: pixel / 127.5 - 1."""
    return pixels.astype(np.float32) / np.float32(127.5) - 1


def in_signed_range(images: np.ndarray, where: str, value_range: ValueRange = None) -> np.ndarray:
    """Floats in value_range → float32 in [-1, 1], clipped. Raises ImageError for other values, NaN and infinity.

    value_range: (-1, 1), or (0, 1), which is converted; None takes [-1, 1], but refuses arrays without a value below 0, which
    most likely lie in [0, 1] and would give pale pictures.
    """
    low, high = float(images.min()), float(images.max())
    if not np.isfinite([low, high]).all():
        raise ImageError(f"{where} must be finite floats, not {images.dtype} with NaN or infinity")
    least, most = value_range or SIGNED
    if low < least - TOLERANCE or high > most + TOLERANCE:
        hint = (
            "; convert pixels from 0 to 255 with images / 127.5 - 1" if low >= 0 and 1 < high <= 255 else ""
        )
        raise ImageError(
            f"{where} must lie in [{least:g}, {most:g}]; these go from {low:.3g} to {high:.3g}{hint}"
        )
    if value_range is None and low >= -TOLERANCE:
        raise ImageError(
            f"{where} have no value below 0, so they seem to lie in [0, 1] instead of [-1, 1]; convert them with images * 2 - 1, or "
            "say which range is meant: value_range=(0, 1) or (-1, 1) of bcm_edge.load, --value-range 0,1 or -1,1 of the command line"
        )
    return np.clip(images * 2 - 1 if value_range == UNIT else images, -1, 1).astype(np.float32)


def from_pixels(pixels: np.ndarray, where: str, value_range: ValueRange = None) -> np.ndarray:
    """uint8 → float32 in [-1, 1]. Raises ImageError where the pixels are 0 and 1 alone, unless a value_range says that all is meant."""
    if value_range is None and pixels.max() == 1:
        raise ImageError(
            f"{where} have no value above 1, so they would be black; convert 0 and 1 to pixels with images * 255"
        )
    return from_uint8(pixels)


def check_value_range(value_range: Sequence[float] | None) -> ValueRange:
    """The range as a pair of floats. Raises InputError for another one than (-1, 1) and (0, 1)."""
    if value_range is None:
        return None
    pair = tuple(map(float, value_range)) if np.shape(value_range) == (2,) else ()
    if pair not in (SIGNED, UNIT):
        raise InputError(f"value_range must be (-1, 1) or (0, 1), not {value_range!r}")
    return SIGNED if pair == SIGNED else UNIT


def parse_value_range(text: str) -> ValueRange:
    """(-1, 1) from "-1,1", (0, 1) from "0,1". Raises InputError."""
    if text not in VALUE_RANGES:
        raise InputError(f"value_range {text!r} is unknown; give {' or '.join(VALUE_RANGES)}")
    return VALUE_RANGES[text]


def to_uint8(images: np.ndarray) -> np.ndarray:
    """float in [-1, 1], clipped → uint8, rounded to nearest."""
    return np.rint((np.clip(images, -1, 1) + 1) * 127.5).astype(np.uint8)


def mean_squared_error(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Reconstruction error: mean of (a/255 - b/255)² over the pixels of each image as uint8. Returns [N].

    The authors' measure, but for pixels rounded to nearest where they cut off the fraction.
    """
    difference = (to_uint8(a).astype(np.float64) - to_uint8(b)) / 255
    return np.square(difference).reshape(len(a), -1).mean(axis=1)
