"""Restore damaged images: compressed, blurred, noisy or attacked ones. The kind of damage need not be known.

Noise of standard deviation σ hides what is weaker than it. The network moves the noisy image up to a high
level, where only what is typical of the data remains, and down again:  +σ σ>LEVEL>0.002.  A higher σ, the
strength, removes more damage and loses more detail.
"""

from __future__ import annotations

import numpy as np

from ...errors import InputError, ScheduleError
from ..backends.base import Backend
from ..batches import Batch
from ..calls import AfterMove
from ..chain import play
from ..schedule import SIGMA_MIN, Schedule, inversion_advice, parse_schedule

# The highest level of the schedule; docs/task-levels.md compares it with lower and higher ones.
LEVEL = 5.0


def restoration(strength: float) -> Schedule:
    """Return the schedule for a strength, a noise level in [0.002, LEVEL). Raises InputError."""
    if not SIGMA_MIN <= strength < LEVEL:
        raise InputError(f"strength must be at least {SIGMA_MIN} and below {LEVEL:g}, not {strength}")
    return parse_schedule(f"+{strength} {strength}>{LEVEL}>{SIGMA_MIN}")


def restore(
    backend: Backend,
    schedule: Schedule,
    batch: Batch,
    images: np.ndarray,
    after_move: AfterMove | None = None,
) -> np.ndarray:
    """Return the images after a schedule from an image to an image: float32 [N, C, H, W] in [-1, 1].

    images: float32 [N, C, H, W] in [-1, 1]. Raises ScheduleError.
    """
    check_restores(schedule)
    return np.clip(play(schedule, backend, batch, images, after_move), -1, 1)


def check_restores(schedule: Schedule) -> None:
    """Raise ScheduleError unless the schedule leads from an image to an image."""
    if not schedule.restores:
        raise ScheduleError(
            f"schedule {str(schedule)!r} does not restore: a restoration adds noise to an image and ends at "
            f"0.002, for example '+0.2 0.2>5>0.002'{inversion_advice(schedule)}"
        )
