"""The chain: plays a schedule on a backend. It knows no task and no library; a task knows no backend."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ..errors import NonFiniteError
from .backends.base import Backend
from .noise import INVERSION_DRAW, START_DRAW, standard_normal
from .schedule import Inject, Move, Schedule

OnMove = Callable[[int, Move, np.ndarray], None]  # (index of the move, the move, the state after it [N, C, H, W])


def play(
    schedule: Schedule,
    backend: Backend,
    seeds: Sequence[int],
    labels: np.ndarray | None = None,
    x: np.ndarray | None = None,
    on_move: OnMove | None = None,
) -> np.ndarray:
    """The state after the schedule: float32 [N, C, H, W], not clipped.

    seeds: one integer per sample, from which all its noise comes. labels: int64 [N], exactly when the model has classes.
    x: float32 [N, C, H, W], the image (schedules that begin with an injection) or the state at level `schedule.start`;
    None draws a start of std `schedule.start` from the seeds. Raises NonFiniteError naming the first bad move.
    """
    if x is None:
        x = np.float32(schedule.start) * standard_normal(seeds, backend.sample_shape, START_DRAW)
    noise, injections, moves = None, 0, 0
    for position, step in enumerate(schedule.steps):
        if isinstance(step, Inject):
            inverting = position == 0
            injections += not inverting
            draw = INVERSION_DRAW if inverting else START_DRAW + injections
            noise = np.float32(step.sigma) * standard_normal(seeds, backend.sample_shape, draw)
            continue
        x, noise = backend.play_move(x, noise, step, labels), None
        if not np.isfinite(x).all():
            bad = int(np.argmin(np.isfinite(x).reshape(len(x), -1).all(axis=1)))
            where = f"move {moves + 1} of {schedule.nfe} ({step}) on backend {backend.name}"
            raise NonFiniteError(f"{where} gave NaN or infinity (first in sample {bad}); no image was made")
        if on_move:
            on_move(moves, step, x)
        moves += 1
    return x
