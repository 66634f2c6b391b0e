"""Write animations: GIF, or animated PNG, which keeps every grey level and colour."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..pixels import to_uint8
from ..storage.files import replacing
from .grids import CELL, Grid, as_picture, enlargement, labelled_grid, rows_of
from .metadata import png_text

FORMATS = {".gif": "GIF", ".apng": "PNG"}  # suffix → Pillow's name of the format
SIDE = 256  # pixels; an animation of one image is enlarged to at least this size
FRAME_MS = 120  # milliseconds for which a frame is shown
END_MS = 600  # milliseconds for which the first and the last frame are shown


def save_animation(
    frames: np.ndarray,
    path: Path,
    force: bool = False,
    scale: int | None = None,
    facts: Mapping[str, Any] | None = None,
) -> None:
    """Write an animation that plays the frames forwards and backwards, in an endless loop.

    frames: float [F, N, C, H, W] in [-1, 1], F frames of N images each; the images of a frame form a grid.
    path: its suffix, .gif or .apng, decides the format.
    scale: the whole factor of the enlargement (default: a single image has at least SIDE pixels, those of a
        grid CELL).
    facts: the origin of the images, for the text of APNG files (`png_text`).

    Raises OutputError.
    """
    _, n, _, height, width = frames.shape
    scale = scale or enlargement(height, width, SIDE if n == 1 else CELL)
    forwards = [as_picture(_frame(images, scale)) for images in frames]
    backwards = forwards[-2:0:-1]
    durations = [FRAME_MS] * (len(forwards) + len(backwards))
    durations[0] = durations[len(forwards) - 1] = END_MS
    first, *others = [*forwards, *backwards]
    options = {"pnginfo": png_text(facts)} if facts and path.suffix.lower() == ".apng" else {}
    with replacing(path, force) as partial:
        first.save(
            partial,
            format=FORMATS[path.suffix.lower()],
            save_all=True,
            append_images=others,
            duration=durations,
            loop=0,
            **options,
        )


def _frame(images: np.ndarray, scale: int) -> np.ndarray:
    """Return the pixels of a frame, uint8 [C, H', W']: an image, or a grid of several."""
    if len(images) > 1:
        return labelled_grid(Grid(rows_of(images)), scale)
    return to_uint8(images[0]).repeat(scale, axis=1).repeat(scale, axis=2)
