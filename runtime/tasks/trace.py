"""The states along a schedule, and where a reconstruction errs: what there is to see between the first state and the last."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..backends.base import Backend
from ..chain import OnMove, injected_noises, play, start_state
from ..schedule import Move, Schedule

SIGMA_DATA = 0.5  # standard deviation of images in [-1, 1], as the preconditioning assumes it


@dataclass(frozen=True)
class Trace:
    """levels: of the S states; states: float32 [S, N, C, H, W], the first being what the schedule began with (an image with the noise
    that was added to it, or noise)."""

    levels: tuple[float, ...]
    states: np.ndarray

    def pictures(self) -> np.ndarray:
        """`picture` of every state."""
        return picture(self.states, np.array(self.levels, np.float32).reshape(-1, 1, 1, 1, 1))


def picture(state: np.ndarray, level: float | np.ndarray) -> np.ndarray:
    """A state scaled to the contrast of an image: x σ_data / √(σ² + σ_data²), float32 like the state, to be clipped to [-1, 1]."""
    return (
        state
        * np.float32(SIGMA_DATA)
        / np.sqrt(np.square(np.asarray(level, np.float32)) + np.float32(SIGMA_DATA**2))
    )


def trace(
    backend: Backend,
    schedule: Schedule,
    seeds: Sequence[int],
    labels: np.ndarray | None,
    images: np.ndarray | None = None,
    on_move: OnMove | None = None,
) -> Trace:
    """All states of a schedule: from images float32 [N, C, H, W] in [-1, 1] if it starts from an image, else from the seeds' noise."""
    x = start_state(schedule, backend, seeds) if images is None else images
    first = injected_noises(schedule, backend, seeds)[0]
    levels, states = [schedule.start], [x if first is None else x + first]

    def keep(index: int, move: Move, state: np.ndarray) -> None:
        levels.append(move.u)
        states.append(state)
        if on_move:
            on_move(index, move, state)

    play(schedule, backend, seeds, labels, x, keep)
    return Trace(tuple(levels), np.stack(states))
