"""Play a schedule on a backend, move after move. It depends on no task and no backend library."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ..errors import NonFiniteError
from .backends.base import Backend, DeviceBackend, on_device
from .batches import Batch
from .calls import AfterMove
from .noise import INVERSION_DRAW, START_DRAW, Draw, values
from .pixels import to_uint8
from .schedule import SIGMA_MIN, Inject, Schedule

# An image [N, C, H, W] → a near image that agrees with what is known.
Project = Callable[[np.ndarray], np.ndarray]
# For each move the noise that is added to its input, float32 [N, C, H, W] if it has been drawn, or None.
Inputs = list[np.ndarray | Draw | None]


def play(
    schedule: Schedule,
    backend: Backend,
    batch: Batch,
    x: np.ndarray | None = None,
    after_move: AfterMove | None = None,
    project: Project | None = None,
) -> np.ndarray:
    """Return the state after the schedule, float32 [N, C, H, W], not clipped.

    x: float32 [N, C, H, W], the image for a schedule that begins with an injection, else the state at level
    `schedule.start`. None draws a state of standard deviation `schedule.start` from the seeds.

    after_move is called after every move; on a device, after all moves have been played there. project gets
    the state whenever the schedule arrives at an image (level 0.002), and returns the image that the schedule
    continues from; a device copies its state to the host for that.

    Raises NonFiniteError, which names the first move whose result is not finite.
    """
    state, noises = _inputs(schedule, backend, batch, x)
    for part in _parts(schedule) if project else [range(schedule.nfe)]:
        state = _play_part(schedule, part, backend, batch, state, noises, after_move)
        if project and schedule.moves[part[-1]].u == SIGMA_MIN:
            state = project(state)
    return values(state)


def play_to_pixels(
    schedule: Schedule,
    backend: Backend,
    batch: Batch,
    x: np.ndarray | None = None,
    after_move: AfterMove | None = None,
) -> np.ndarray:
    """Return the state after the schedule as pixels, uint8 [N, C, H, W], clipped and rounded.

    A device converts to pixels itself. Arguments and errors are those of `play`.
    """
    if after_move or not on_device(backend):
        return to_uint8(play(schedule, backend, batch, x, after_move))
    state, noises = _inputs(schedule, backend, batch, x)
    pixels, finite = backend.play_to_pixels(state, schedule.moves, noises, batch.labels)
    if not finite.all():
        # Played again with all states, which raises NonFiniteError with the name of the move.
        return to_uint8(_play_part(schedule, range(schedule.nfe), backend, batch, state, noises, None))
    return pixels


def _inputs(
    schedule: Schedule, backend: Backend, batch: Batch, x: np.ndarray | None
) -> tuple[np.ndarray | Draw, Inputs]:
    """Return the start of a schedule, and for each move the noise in front of it."""
    start = start_state(schedule, backend, batch.seeds) if x is None else x
    noises: Inputs = [*injected_noises(schedule, backend, batch.seeds)]
    if batch.ahead is None:
        return start, noises
    if isinstance(start, Draw):
        start = batch.ahead.values(start)
    return start, [batch.ahead.values(noise) if isinstance(noise, Draw) else noise for noise in noises]


def start_state(schedule: Schedule, backend: Backend, seeds: Sequence[int]) -> Draw:
    """Return the noise that a generation starts from, of standard deviation `schedule.start`."""
    return Draw(seeds, backend.sample_shape, START_DRAW, schedule.start)


def injected_noises(schedule: Schedule, backend: Backend, seeds: Sequence[int]) -> list[Draw | None]:
    """Return for each move the noise of the injection in front of it, or None."""
    noises: list[Draw | None] = []
    noise: Draw | None = None
    injections = 0
    for position, step in enumerate(schedule.steps):
        if isinstance(step, Inject):
            inverting = position == 0
            injections += not inverting
            draw = INVERSION_DRAW if inverting else START_DRAW + injections
            noise = Draw(seeds, backend.sample_shape, draw, step.sigma)
        else:
            noises.append(noise)
            noise = None
    return noises


def _parts(schedule: Schedule) -> list[range]:
    """The indices of the moves between one arrival at an image and the next."""
    ends = [i + 1 for i, move in enumerate(schedule.moves) if move.u == SIGMA_MIN or i + 1 == schedule.nfe]
    return [range(start, end) for start, end in zip([0, *ends], ends, strict=False)]


def _play_part(
    schedule: Schedule,
    part: range,
    backend: Backend,
    batch: Batch,
    x: np.ndarray | Draw,
    noises: Inputs,
    after_move: AfterMove | None,
) -> np.ndarray:
    """Return the state after the moves whose indices are in `part`."""
    if on_device(backend):
        return _play_on_device(schedule, part, backend, batch, x, noises, after_move)
    state = values(x)
    for index in part:
        noise = noises[index]
        added = None if noise is None else values(noise)
        state = backend.play_move(state, added, schedule.moves[index], batch.labels)
        _check_finite(state, schedule, index, backend.name)
        if after_move:
            after_move(schedule.moves[index], state)
    return state


def _play_on_device(
    schedule: Schedule,
    part: range,
    backend: DeviceBackend,
    batch: Batch,
    x: np.ndarray | Draw,
    noises: Inputs,
    after_move: AfterMove | None,
) -> np.ndarray:
    moves = schedule.moves[part.start : part.stop]
    added = noises[part.start : part.stop]
    states = backend.play_moves(x, moves, added, batch.labels, every=after_move is not None)
    if not np.isfinite(states[-1]).all():
        # Only the states after every move show at which one it began.
        every_state = backend.play_moves(x, moves, added, batch.labels, every=True)
        for index, state in zip(part, every_state, strict=True):
            _check_finite(state, schedule, index, backend.name)
    if after_move:
        for move, state in zip(moves, states, strict=True):
            after_move(move, state)
    return states[-1]


def _check_finite(state: np.ndarray, schedule: Schedule, index: int, backend: str) -> None:
    if np.isfinite(state).all():
        return
    finite_samples = np.isfinite(state).reshape(len(state), -1).all(axis=1)
    sample = int(np.argmin(finite_samples))
    raise NonFiniteError(
        f"move {index + 1} of {schedule.nfe} ({schedule.moves[index]}) on backend {backend} gave NaN or "
        f"infinity (first in sample {sample}); no image was made"
    )
