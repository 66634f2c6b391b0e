"""The fields of a request from the page, read by name and checked. Errors name the field."""

from __future__ import annotations

import base64
import binascii
import io
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import ImageError, InputError, LabelError
from ..runtime.classes import GUESS
from ..runtime.pictures.formats import read_picture
from ..runtime.pictures.grids import as_picture
from ..runtime.pixels import to_uint8

# The formats that browsers send. Pillow's other decoders are not opened to strangers.
FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "GIF", "BMP", "TIFF")


@dataclass(frozen=True)
class Fields:
    """The fields of one request. A field that is absent or null has its default."""

    # The JSON object that was sent.
    values: dict[str, Any]

    def integer(self, name: str, default: int, low: int, high: int) -> int:
        """Return a whole number in [low, high]. Raises InputError for anything else."""
        value = self._get(name, default)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise InputError(f"{name} must be a whole number from {low} to {high}, got {_shown(value)}")
        return value

    def text(self, name: str, default: str) -> str:
        """Return a text. Raises InputError for anything else."""
        value = self._get(name, default)
        if not isinstance(value, str):
            raise InputError(f"{name} must be a text, got {_shown(value)}")
        return value

    def label(self, name: str) -> int | str | None:
        """Return a class by its number or name, GUESS, or None. Raises LabelError for anything else.

        Whether the model has this class is not checked.
        """
        value = self._get(name, None)
        is_number = isinstance(value, int) and not isinstance(value, bool)
        if value is None or isinstance(value, str) or is_number:
            return value
        raise LabelError(f"{name} must be a whole number, a class name or {GUESS!r}, got {_shown(value)}")

    def picture(self, name: str, sample_shape: tuple[int, int, int]) -> np.ndarray:
        """Return the picture of a data URL, float32 [1, C, H, W] in [-1, 1]. Raises ImageError.

        It is cropped and resized as image files are.
        """
        value = self._get(name, None)
        if value is None:
            raise ImageError(f"{name}: no picture was sent; choose one first")
        head, _, body = value.partition(",") if isinstance(value, str) else ("", "", "")
        if not (head.startswith("data:") and head.endswith(";base64")):
            raise ImageError(f"{name}: expected a picture as a data URL in base64")
        try:
            data = base64.b64decode(body, validate=True)
        except (binascii.Error, ValueError) as error:
            raise ImageError(f"{name}: expected a picture as a data URL in base64") from error
        return read_picture(io.BytesIO(data), sample_shape, name, FORMATS)[None]

    def mask(self, name: str, height: int, width: int) -> np.ndarray:
        """Return a mask, bool [H, W], True where to fill in. Raises ImageError.

        It is sent as H texts of W digits: 1 where to fill in, else 0.
        """
        rows = self._get(name, None)
        fits = isinstance(rows, list) and len(rows) == height
        if not fits or not all(_is_mask_row(row, width) for row in rows):
            raise ImageError(
                f"{name} must be {height} texts of {width} digits each: 1 where to fill in, 0 elsewhere"
            )
        return np.array([[digit == "1" for digit in row] for row in rows])

    def _get(self, name: str, default: Any) -> Any:
        value = self.values.get(name)
        return default if value is None else value


def data_url(image: np.ndarray) -> str:
    """Return an image, float [C, H, W] in [-1, 1], as the data URL of a PNG file with exactly its pixels."""
    file = io.BytesIO()
    as_picture(to_uint8(image)).save(file, format="PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def _is_mask_row(row: Any, width: int) -> bool:
    return isinstance(row, str) and len(row) == width and set(row) <= {"0", "1"}


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}…"
