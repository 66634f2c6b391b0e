"""Images of which something is known: all pixels but a hole, their brightness, or themselves in low resolution.

One algorithm serves the three (docs/tasks.md). A schedule that comes back to the image several times is played, and at every return the
image is projected: changed so that it agrees with what is known. So the result agrees with it (known pixels to the last bit, means and
brightness up to rounding), and what is not known is drawn towards what fits.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...errors import ScheduleError
from ..backends.base import Backend
from ..chain import OnMove, Project, play
from ..schedule import SIGMA_MAX, SIGMA_MIN, Schedule, parse_schedule
from .size import relative_side

# Rounds of fresh noise, falling, then one in which a little noise is amplified by the network; the more is known, the lower the levels.
# Chosen on the validation digits, for colours on coloured ones. docs/tasks.md has what was tried.
HOLES = (1.5, 1, 0.7, 0.5, 0.4), (0.2, 0.6)  # at 8×8 pixels: levels of the rounds, and of the last one
UPSCALING = parse_schedule(
    "80>0.002 +1 1>0.002 +0.7 0.7>0.002 +0.5 0.5>0.002 +0.3 0.3>0.002 +0.2 0.2>0.002 +0.1 0.1>0.8>0.002"
)
COLOURING = UPSCALING
LUMA = np.array([0.299, 0.587, 0.114], np.float32).reshape(
    1, 3, 1, 1
)  # grey = LUMA · (R, G, B), ITU-R BT.601, as Pillow has it


def inpainting(sample_shape: tuple[int, int, int]) -> Schedule:
    """The schedule that fills holes in images [C, H, W]; its levels grow with the side (size.py), up to 80. 8 network calls."""
    rounds, (low, high) = HOLES
    times = min(relative_side(sample_shape), SIGMA_MAX / rounds[0])
    *falling, low, high = (f"{times * level:.4g}" for level in (*rounds, low, high))
    fresh = " ".join(f"+{level} {level}>{SIGMA_MIN}" for level in falling)
    return parse_schedule(f"{SIGMA_MAX:g}>{SIGMA_MIN} {fresh} +{low} {low}>{high}>{SIGMA_MIN}")


def constrained(
    backend: Backend,
    schedule: Schedule,
    project: Project,
    seeds: Sequence[int],
    labels: np.ndarray | None,
    on_move: OnMove | None = None,
) -> np.ndarray:
    """Images float32 [N, C, H, W] in [-1, 1] that `project` leaves as they are, generated from the seeds' noise."""
    check_constrains(schedule)
    return play(schedule, backend, seeds, labels, None, on_move, project)


def check_constrains(schedule: Schedule) -> None:
    """Raise ScheduleError for a schedule that does not begin in noise and end at an image."""
    if schedule.from_image or schedule.end != SIGMA_MIN:
        raise ScheduleError(
            f"schedule {str(schedule)!r} does not fill in: it begins in noise and comes back to 0.002, once or often, as in "
            "'80>0.002 +1 1>0.002 +0.2 0.2>0.8>0.002'"
        )


def known_pixels(images: np.ndarray, holes: np.ndarray) -> Project:
    """Projection on the images that equal `images` outside the holes. holes: bool, True where unknown, broadcastable to images."""
    return lambda x: np.where(holes, np.clip(x, -1, 1), images)


def known_brightness(grey: np.ndarray) -> Project:
    """Projection on the colour images [N, 3, H, W] in [-1, 1] whose brightness LUMA · (R, G, B) is grey [N, 1, H, W]."""
    return lambda x: _with_mean(x, (LUMA * x).sum(axis=1, keepdims=True), grey, axes=(1,))


def known_means(small: np.ndarray, factor: int) -> Project:
    """Projection on the images in [-1, 1] whose means over squares of factor × factor pixels are small [N, C, H / factor, W / factor]."""
    n, c, h, w = small.shape
    target = small[:, :, :, None, :, None]

    def project(x: np.ndarray) -> np.ndarray:
        squares = x.reshape(n, c, h, factor, w, factor)
        agreeing = _with_mean(squares, squares.mean(axis=(3, 5), keepdims=True), target, axes=(3, 5))
        return agreeing.reshape(n, c, h * factor, w * factor)

    return project


def _with_mean(x: np.ndarray, mean: np.ndarray, target: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """target + s (x - mean), with the largest s ≤ 1 per group that keeps the group in [-1, 1].

    Deviations have mean 0 in the group, so the new mean is the target for every s. s = 1 shifts the group; less pales it.
    """
    deviation = x - mean
    above, below = deviation.max(axis=axes, keepdims=True), deviation.min(axis=axes, keepdims=True)
    tiny = np.float32(1e-12)
    s = np.minimum((1 - target) / np.maximum(above, tiny), (1 + target) / np.maximum(-below, tiny))
    return target + np.clip(s, 0, 1) * deviation
