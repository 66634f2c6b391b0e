"""Complete partly known images: all pixels but a hole are known, or the brightness, or a smaller version.

One algorithm does the three tasks (docs/tasks.md). It plays a schedule that returns to the image several
times. At every return it projects the image: it changes the image so that it agrees with what is known. The
result therefore agrees with it, known pixels to the last bit, means and brightness up to rounding.
"""

from __future__ import annotations

import numpy as np

from ...errors import ImageError, ScheduleError
from ..backends.base import Backend
from ..batches import Batch
from ..calls import AfterMove
from ..chain import Project, play
from ..schedule import SIGMA_MAX, SIGMA_MIN, Schedule, inversion_advice, parse_schedule
from ..wording import counted
from .size import relative_side

# Rounds of fresh noise with falling levels; in the last round the network amplifies a little noise. The more
# is known, the lower are the levels. They were chosen on the validation digits, for colours on coloured
# digits. docs/task-levels.md reports what was tried. HOLES has the levels for images of 8×8 pixels: of the
# rounds, and of the last one.
HOLES = (1.5, 1, 0.7, 0.5, 0.4), (0.2, 0.6)
UPSCALING = parse_schedule(
    "80>0.002 +1 1>0.002 +0.7 0.7>0.002 +0.5 0.5>0.002 +0.3 0.3>0.002 +0.2 0.2>0.002 +0.1 0.1>0.8>0.002"
)
COLOURING = UPSCALING
# grey = LUMA · (R, G, B), as ITU-R BT.601 defines it and Pillow computes it
LUMA = np.array([0.299, 0.587, 0.114], np.float32).reshape(1, 3, 1, 1)


def inpainting(sample_shape: tuple[int, int, int]) -> Schedule:
    """Return the schedule that fills holes in images [C, H, W], of 8 network calls.

    Its levels grow with the side of the images (size.py), up to 80.
    """
    rounds, (low, high) = HOLES
    times = min(relative_side(sample_shape), SIGMA_MAX / rounds[0])
    *falling, low, high = (f"{times * level:.4g}" for level in (*rounds, low, high))
    fresh = " ".join(f"+{level} {level}>{SIGMA_MIN}" for level in falling)
    return parse_schedule(f"{SIGMA_MAX:g}>{SIGMA_MIN} {fresh} +{low} {low}>{high}>{SIGMA_MIN}")


def constrained(
    backend: Backend, schedule: Schedule, project: Project, batch: Batch, after_move: AfterMove | None = None
) -> np.ndarray:
    """Generate images that `project` does not change: float32 [N, C, H, W] in [-1, 1].

    Raises ScheduleError.
    """
    check_fills_in(schedule)
    return play(schedule, backend, batch, None, after_move, project)


def check_fills_in(schedule: Schedule) -> None:
    """Raise ScheduleError unless the schedule leads from noise to an image."""
    if not schedule.fills_in:
        raise ScheduleError(
            f"schedule {str(schedule)!r} does not fill in: the schedule must start from noise and return to "
            "0.002 at least once, for example '80>0.002 +1 1>0.002 +0.2 0.2>0.8>0.002'"
            f"{inversion_advice(schedule)}"
        )


def check_colours(sample_shape: tuple[int, int, int]) -> None:
    """Raise ImageError unless images [C, H, W] have three channels."""
    channels = sample_shape[0]
    if channels != 3:
        raise ImageError(
            f"colorize needs a model of 3 channels (colours); this model has {counted(channels, 'channel')}"
        )


def upscaling_factor(
    size: tuple[int, int] | None, factor: int | None, sample_shape: tuple[int, int, int]
) -> int:
    """Return the whole number k by which small images are enlarged to [C, H, W].

    size: the height and width of small images that are arrays, else None, which makes the factor 2.
    factor: the number that the user requests, or None. Raises ImageError.
    """
    _, height, width = sample_shape
    if factor is None:
        factor = height // max(size[0], 1) if size else 2
    shown = size or (height // factor if factor else height, width // factor if factor else width)
    if factor < 2 or (shown[0] * factor, shown[1] * factor) != (height, width):
        factors = [k for k in range(2, min(height, width) + 1) if height % k == width % k == 0]
        sizes = ", ".join(f"{height // k}×{width // k}" for k in factors)
        raise ImageError(
            f"images of {shown[0]}×{shown[1]} pixels cannot be enlarged to {height}×{width}; "
            f"possible sizes: {sizes}"
        )
    return factor


def known_pixels(images: np.ndarray, holes: np.ndarray) -> Project:
    """Return the projection on the images that equal `images` outside the holes.

    images: float32 [N, C, H, W] in [-1, 1]. holes: bool, True where unknown, of a shape that can be broadcast
    to images.
    """
    return lambda x: np.where(holes, np.clip(x, -1, 1), images)


def known_brightness(grey: np.ndarray) -> Project:
    """Return the projection on colour images in [-1, 1] with the brightness `grey`.

    grey: float32 [N, 1, H, W]. The images are [N, 3, H, W].
    """
    return lambda x: _with_mean(x, (LUMA * x).sum(axis=1, keepdims=True), grey, axes=(1,))


def known_means(small: np.ndarray, factor: int) -> Project:
    """Return the projection on the images in [-1, 1] whose means over squares of factor × factor pixels are
    `small`.

    small: float32 [N, C, H / factor, W / factor] in [-1, 1].
    """
    n, c, h, w = small.shape
    target = small[:, :, :, None, :, None]

    def project(x: np.ndarray) -> np.ndarray:
        squares = x.reshape(n, c, h, factor, w, factor)
        agreeing = _with_mean(squares, squares.mean(axis=(3, 5), keepdims=True), target, axes=(3, 5))
        return agreeing.reshape(n, c, h * factor, w * factor)

    return project


def _with_mean(x: np.ndarray, mean: np.ndarray, target: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """Return target + s (x - mean) with the largest s ≤ 1 per group that keeps the group in [-1, 1].

    The deviations of a group have mean 0, so the new mean is the target for every s. s = 1 shifts the values
    of the group; a smaller s also reduces their contrast.
    """
    deviation = x - mean
    above, below = deviation.max(axis=axes, keepdims=True), deviation.min(axis=axes, keepdims=True)
    tiny = np.float32(1e-12)
    s = np.minimum((1 - target) / np.maximum(above, tiny), (1 + target) / np.maximum(-below, tiny))
    return target + np.clip(s, 0, 1) * deviation
