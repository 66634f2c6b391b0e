"""Write animations: GIF, or animated PNG, which keeps every grey level and colour."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..storage.files import replacing
from .writing import as_picture, grid

FORMATS = {".gif": "GIF", ".apng": "PNG"}  # suffix → Pillow's name of the format
FRAME_MS = 120  # milliseconds for which a frame is shown
END_MS = 600  # milliseconds for which the first and the last frame are shown


def save_animation(frames: np.ndarray, path: Path, force: bool = False) -> None:
    """Write an animation that plays the frames forwards and backwards, in an endless loop.

    frames: float [F, N, C, H, W] in [-1, 1], F frames of N images each; the images of a frame form a grid.
    path: its suffix, .gif or .apng, decides the format.

    Raises OutputError.
    """
    forwards = [as_picture(grid(frame)) for frame in frames]
    backwards = forwards[-2:0:-1]
    durations = [FRAME_MS] * (len(forwards) + len(backwards))
    durations[0] = durations[len(forwards) - 1] = END_MS
    first, *others = [*forwards, *backwards]
    with replacing(path, force) as partial:
        first.save(
            partial,
            format=FORMATS[path.suffix.lower()],
            save_all=True,
            append_images=others,
            duration=durations,
            loop=0,
        )
