"""Generate, invert, reconstruct: one program each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...errors import ScheduleError
from ..backends.base import Backend
from ..chain import OnMove, play, play_to_pixels
from ..schedule import SIGMA_MAX, SIGMA_MIN, Schedule


def generate(
    backend: Backend,
    schedule: Schedule,
    seeds: Sequence[int],
    labels: np.ndarray | None,
    latents: np.ndarray | None = None,
    on_move: OnMove | None = None,
    uint8: bool = False,
) -> np.ndarray:
    """Images from the seeds' noise or from unit-variance latents [N, C, H, W]: float32 [N, C, H, W] in [-1, 1], or uint8."""
    check_generates(schedule)
    x = None if latents is None else np.float32(schedule.start) * latents
    return _images(schedule, backend, seeds, labels, x, on_move, uint8)


def invert(
    backend: Backend,
    schedule: Schedule,
    images: np.ndarray,
    seeds: Sequence[int],
    labels: np.ndarray | None,
    on_move: OnMove | None = None,
) -> np.ndarray:
    """Latents float32 [N, C, H, W]: the state at σ_max divided by σ_max, near unit variance. images: float32 in [-1, 1]."""
    check_inverts(schedule)
    return play(schedule, backend, seeds, labels, images, on_move) / np.float32(SIGMA_MAX)


def reconstruct(
    backend: Backend,
    inversion: Schedule,
    generation: Schedule,
    images: np.ndarray,
    seeds: Sequence[int],
    labels: np.ndarray | None,
    on_move: OnMove | None = None,
    uint8: bool = False,
) -> np.ndarray:
    """Invert, then generate from the latent: one program of both. Images float32 [N, C, H, W] in [-1, 1], or uint8."""
    check_inverts(inversion)
    check_generates(generation)
    return _images(inversion + generation, backend, seeds, labels, images, on_move, uint8)


def _images(
    schedule: Schedule,
    backend: Backend,
    seeds: Sequence[int],
    labels: np.ndarray | None,
    x: np.ndarray | None,
    on_move: OnMove | None,
    uint8: bool,
) -> np.ndarray:
    if uint8:
        return play_to_pixels(schedule, backend, seeds, labels, x, on_move)
    return np.clip(play(schedule, backend, seeds, labels, x, on_move), -1, 1)


def check_inverts(schedule: Schedule) -> None:
    if not schedule.from_image or schedule.end != SIGMA_MAX:
        raise ScheduleError(
            f"schedule {str(schedule)!r} does not invert: an inversion adds noise to an image and ends at 80, as in '+0.07 0.07>15>80'"
        )


def check_generates(schedule: Schedule) -> None:
    if schedule.from_image:
        raise ScheduleError(f"schedule {str(schedule)!r} starts from an image, so it cannot generate")
    if (schedule.start, schedule.end) != (SIGMA_MAX, SIGMA_MIN):
        raise ScheduleError(
            f"schedule {str(schedule)!r} does not generate: a generation goes from 80 to 0.002, as in '80>2.4>0.002'"
        )
