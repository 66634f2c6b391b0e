"""Generate, invert and reconstruct images: one program each."""

from __future__ import annotations

import numpy as np

from ...errors import ScheduleError
from ..backends.base import Backend
from ..batches import Batch
from ..calls import AfterMove
from ..chain import play, play_to_pixels
from ..schedule import SIGMA_MAX, SIGMA_MIN, Schedule, inversion_advice
from ..wording import argument


def generate(
    backend: Backend,
    schedule: Schedule,
    batch: Batch,
    latents: np.ndarray | None = None,
    after_move: AfterMove | None = None,
    uint8: bool = False,
) -> np.ndarray:
    """Return images, float32 [N, C, H, W] in [-1, 1], or uint8.

    latents: float32 [N, C, H, W] of unit variance; None draws them from the seeds. Raises ScheduleError.
    """
    check_generates(schedule)
    x = None if latents is None else np.float32(schedule.start) * latents
    return _images(backend, schedule, batch, x, after_move, uint8)


def invert(
    backend: Backend,
    schedule: Schedule,
    batch: Batch,
    images: np.ndarray,
    after_move: AfterMove | None = None,
) -> np.ndarray:
    """Return latents, float32 [N, C, H, W] near unit variance: the state at level 80, divided by 80.

    images: float32 [N, C, H, W] in [-1, 1]. Raises ScheduleError.
    """
    check_inverts(schedule)
    return play(schedule, backend, batch, images, after_move) / np.float32(SIGMA_MAX)


def reconstruct(
    backend: Backend,
    inversion: Schedule,
    generation: Schedule,
    batch: Batch,
    images: np.ndarray,
    after_move: AfterMove | None = None,
    uint8: bool = False,
) -> np.ndarray:
    """Invert images and generate them again, as one program: float32 [N, C, H, W] in [-1, 1], or uint8.

    images: float32 [N, C, H, W] in [-1, 1]. Raises ScheduleError.
    """
    check_inverts(inversion)
    check_generates(generation)
    return _images(backend, inversion + generation, batch, images, after_move, uint8)


def _images(
    backend: Backend,
    schedule: Schedule,
    batch: Batch,
    x: np.ndarray | None,
    after_move: AfterMove | None,
    uint8: bool,
) -> np.ndarray:
    if uint8:
        return play_to_pixels(schedule, backend, batch, x, after_move)
    return np.clip(play(schedule, backend, batch, x, after_move), -1, 1)


def check_inverts(schedule: Schedule) -> None:
    """Raise ScheduleError unless the schedule leads from an image to level 80."""
    if not schedule.inverts:
        advice = ""
        if schedule.end == SIGMA_MIN:
            advice = f"; a schedule to an image is given as {argument('schedule=', '--schedule')}"
        raise ScheduleError(
            f"schedule {str(schedule)!r} does not invert: an inversion adds noise to an image and ends at 80"
            f", for example '+0.07 0.07>15>80'{advice}"
        )


def check_ends_at_image(schedule: Schedule) -> None:
    """Raise ScheduleError unless the schedule leads to an image."""
    if schedule.end != SIGMA_MIN:
        advice = inversion_advice(schedule)
        raise ScheduleError(f"schedule {str(schedule)!r} does not lead to an image{advice}")


def check_generates(schedule: Schedule) -> None:
    """Raise ScheduleError unless the schedule leads from level 80 to an image."""
    if schedule.from_image:
        raise ScheduleError(
            f"schedule {str(schedule)!r} starts from an image, so it cannot generate"
            f"{inversion_advice(schedule)}"
        )
    if not schedule.generates:
        raise ScheduleError(
            f"schedule {str(schedule)!r} does not generate: a generation goes from 80 to 0.002, "
            "for example '80>2.4>0.002'"
        )
