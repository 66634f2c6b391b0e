"""The states along a schedule, from the first to the last, and their pictures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...errors import ScheduleError
from ..backends.base import Backend
from ..batches import Batch
from ..calls import AfterMove
from ..chain import injected_noises, play, start_state
from ..schedule import SIGMA_DATA, Move, Schedule
from .basic import check_ends_at_image, check_inverts


@dataclass(frozen=True)
class Trace:
    """The S states of a schedule: the one that it starts from, and one after every move."""

    levels: tuple[float, ...]  # the noise levels of the S states
    states: np.ndarray  # float32 [S, N, C, H, W]; the first is noise, or an image with the noise added to it

    def pictures(self) -> np.ndarray:
        """Return `picture` of every state, float32 [S, N, C, H, W]."""
        return picture(self.states, np.array(self.levels, np.float32).reshape(-1, 1, 1, 1, 1))


def picture(state: np.ndarray, level: float | np.ndarray) -> np.ndarray:
    """Return a state scaled to the contrast of an image, x σ_data / √(σ² + σ_data²), not clipped to [-1, 1].

    state: float32 of any shape. level: σ, a number, or an array that can be broadcast to the state.
    """
    variance = np.square(np.asarray(level, np.float32)) + np.float32(SIGMA_DATA**2)
    return state * np.float32(SIGMA_DATA) / np.sqrt(variance)


def trace(
    backend: Backend,
    schedule: Schedule,
    batch: Batch,
    images: np.ndarray | None = None,
    after_move: AfterMove | None = None,
) -> Trace:
    """Play a schedule and keep all its states.

    images: float32 [N, C, H, W] in [-1, 1], for a schedule that starts from an image; None starts from noise.
    """
    x = start_state(schedule, backend, batch.seeds).values() if images is None else images
    first_noise = injected_noises(schedule, backend, batch.seeds)[0]
    states = [x if first_noise is None else x + first_noise.values()]

    def keep(move: Move, state: np.ndarray) -> None:
        states.append(state)
        if after_move:
            after_move(move, state)

    play(schedule, backend, batch, x, keep)
    return Trace(trace_levels(schedule), np.stack(states))


def program(schedule: Schedule, inversion: Schedule | None) -> Schedule:
    """Return the program to trace, from a schedule to an image.

    inversion: played before a schedule that starts from noise; None if there are no images.
    Raises ScheduleError for a schedule of another direction, and for one from an image without images.
    """
    if schedule.from_image:
        check_ends_at_image(schedule)
    if inversion is None:
        if schedule.from_image:
            raise ScheduleError(f"schedule {str(schedule)!r} starts from an image, but there are no images")
        return schedule
    if schedule.from_image:
        return schedule
    check_inverts(inversion)
    return inversion + schedule


def trace_levels(schedule: Schedule) -> tuple[float, ...]:
    """Return the noise levels of the states that `trace` keeps."""
    return (schedule.start, *(move.u for move in schedule.moves))
