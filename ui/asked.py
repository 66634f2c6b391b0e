"""What the page sends, checked: a JSON object whose fields are read by name and kind. A refusal is an InputError that names the field."""

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
from ..runtime.pictures.writing import as_picture
from ..runtime.pixels import to_uint8

FORMATS = (
    "PNG",
    "JPEG",
    "MPO",
    "WEBP",
    "GIF",
    "BMP",
    "TIFF",
)  # what browsers hold; Pillow's others run more code than a stranger should


@dataclass(frozen=True)
class Asked:
    """The fields of one request. A default stands for a field that is absent or null."""

    fields: dict[str, Any]

    def integer(self, name: str, default: int, low: int, high: int) -> int:
        """Raises InputError for anything but a whole number in [low, high]."""
        value = self._get(name, default)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise InputError(f"{name} must be a whole number from {low} to {high}, not {_shown(value)}")
        return value

    def text(self, name: str, default: str) -> str:
        value = self._get(name, default)
        if not isinstance(value, str):
            raise InputError(f"{name} must be a text, not {_shown(value)}")
        return value

    def label(self, name: str) -> int | str | None:
        """A class by number or name, GUESS, or None; whether the model has that class is checked by the model. Raises LabelError."""
        value = self._get(name, None)
        if (
            value is None
            or isinstance(value, str)
            or (isinstance(value, int) and not isinstance(value, bool))
        ):
            return value
        raise LabelError(f"{name} must be a whole number, a class name or {GUESS!r}, not {_shown(value)}")

    def picture(self, name: str, sample_shape: tuple[int, int, int]) -> np.ndarray:
        """float32 [1, C, H, W] in [-1, 1] from a data URL, cropped and resized as image files are. Raises ImageError."""
        value = self._get(name, None)
        if value is None:
            raise ImageError(f"{name}: no picture was given")
        head, _, body = value.partition(",") if isinstance(value, str) else ("", "", "")
        if not (head.startswith("data:") and head.endswith(";base64")):
            raise ImageError(f"{name}: not a picture as a data URL in base64")
        try:
            data = base64.b64decode(body, validate=True)
        except (binascii.Error, ValueError) as error:
            raise ImageError(f"{name}: not a picture as a data URL in base64") from error
        return read_picture(io.BytesIO(data), sample_shape, name, FORMATS)[None]

    def mask(self, name: str, height: int, width: int) -> np.ndarray:
        """bool [H, W], True where unknown, from H texts of W digits, 1 where unknown. Raises ImageError."""
        rows = self._get(name, None)
        fits = isinstance(rows, list) and len(rows) == height
        if not fits or not all(
            isinstance(row, str) and len(row) == width and set(row) <= {"0", "1"} for row in rows
        ):
            raise ImageError(
                f"{name} must be {height} texts of {width} digits each, 1 where it is to be filled in, 0 elsewhere"
            )
        return np.array([[digit == "1" for digit in row] for row in rows])

    def _get(self, name: str, default: Any) -> Any:
        value = self.fields.get(name)
        return default if value is None else value


def data_url(image: np.ndarray) -> str:
    """A picture float [C, H, W] in [-1, 1] as a PNG that a page can show, pixel for pixel."""
    file = io.BytesIO()
    as_picture(to_uint8(image)).save(file, format="PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}…"
