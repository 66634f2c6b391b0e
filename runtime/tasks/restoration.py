"""Images that something was done to: compressed, blurred, noisy, or attacked. Nothing needs to be known of what it was.

Noise of std σ hides what is weaker than it; the network moves the image up to a high level, where it only keeps what the data looks like,
and down again:  +σ σ>LEVEL>0.002.  σ, the strength, trades the damage that is removed for the detail that is lost.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...errors import InputError, ScheduleError
from ..backends.base import Backend
from ..chain import OnMove, play
from ..schedule import SIGMA_MIN, Schedule, parse_schedule

LEVEL = 5.0  # the top of the way; docs/tasks.md has the comparison with lower and higher ones


def restoration(strength: float) -> Schedule:
    """The program of a strength, which is a noise level in [0.002, LEVEL). Raises InputError."""
    if not SIGMA_MIN <= strength < LEVEL:
        raise InputError(f"strength is a noise level from {SIGMA_MIN} to below {LEVEL:g}, not {strength:g}")
    return parse_schedule(f"+{strength} {strength}>{LEVEL}>{SIGMA_MIN}")


def restore(
    backend: Backend,
    schedule: Schedule,
    images: np.ndarray,
    seeds: Sequence[int],
    labels: np.ndarray | None,
    on_move: OnMove | None = None,
) -> np.ndarray:
    """Images float32 [N, C, H, W] in [-1, 1], played through a schedule that leads from an image to an image."""
    check_restores(schedule)
    return np.clip(play(schedule, backend, seeds, labels, images, on_move), -1, 1)


def check_restores(schedule: Schedule) -> None:
    """Raise ScheduleError for a schedule that does not lead from an image to an image."""
    if not schedule.from_image or schedule.end != SIGMA_MIN:
        raise ScheduleError(
            f"schedule {str(schedule)!r} does not restore: it begins with noise on an image and ends at 0.002, as in '+0.2 0.2>5>0.002'"
        )
