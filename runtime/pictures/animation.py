"""Moving pictures: GIF, and PNG with frames, which keeps every grey and colour."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..storage.files import replacing
from .writing import as_picture, grid

FORMATS = {".gif": "GIF", ".apng": "PNG"}
MILLISECONDS = 120  # per frame
REST = 600  # milliseconds at either end


def save_animation(frames: np.ndarray, path: Path, force: bool = False) -> None:
    """Write float [F, N, C, H, W] in [-1, 1]: F frames, each a grid of N images, there and back again, for ever. Raises OutputError.

    The suffix decides the format: .gif or .apng.
    """
    shown = [as_picture(grid(frame)) for frame in frames]
    turned = [*shown, *shown[-2:0:-1]]
    rests = [REST if i in (0, len(shown) - 1) else MILLISECONDS for i in range(len(turned))]
    with replacing(path, force) as partial:
        options = {"save_all": True, "append_images": turned[1:], "duration": rests, "loop": 0}
        turned[0].save(partial, format=FORMATS[path.suffix.lower()], **options)
