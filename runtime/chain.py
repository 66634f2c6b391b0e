"""The chain: plays a schedule on a backend. It knows no task and no library; a task knows no backend."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ..errors import NonFiniteError
from .backends.base import Backend, DeviceBackend
from .images import to_uint8
from .noise import INVERSION_DRAW, START_DRAW, standard_normal
from .schedule import Inject, Move, Schedule

OnMove = Callable[[int, Move, np.ndarray], None]  # (index of the move, the move, the state after it [N, C, H, W])
Noises = list[np.ndarray | None]  # per move: what is added to its input, float32 [N, C, H, W]


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

    on_move is called after every move; on a device, once all have been played there.
    """
    x = start_state(schedule, backend, seeds) if x is None else x
    noises = injected_noises(schedule, backend, seeds)
    if isinstance(backend, DeviceBackend):
        return _play_on_device(schedule, backend, x, noises, labels, on_move)
    for index, (move, noise) in enumerate(zip(schedule.moves, noises, strict=True)):
        x = backend.play_move(x, noise, move, labels)
        _check_finite(x, schedule, index, backend.name)
        if on_move:
            on_move(index, move, x)
    return x


def play_to_pixels(
    schedule: Schedule,
    backend: Backend,
    seeds: Sequence[int],
    labels: np.ndarray | None = None,
    x: np.ndarray | None = None,
    on_move: OnMove | None = None,
) -> np.ndarray:
    """The state after the schedule as pixels: uint8 [N, C, H, W], clipped and rounded, on the device where the backend has one.

    Arguments and errors as of `play`.
    """
    if on_move or not isinstance(backend, DeviceBackend):
        return to_uint8(play(schedule, backend, seeds, labels, x, on_move))
    x = start_state(schedule, backend, seeds) if x is None else x
    noises = injected_noises(schedule, backend, seeds)
    pixels, finite = backend.play_to_pixels(x, schedule.moves, noises, labels)
    if not finite.all():
        return to_uint8(_play_on_device(schedule, backend, x, noises, labels, None))  # which says where
    return pixels


def start_state(schedule: Schedule, backend: Backend, seeds: Sequence[int]) -> np.ndarray:
    """The noise that a generation starts from: float32 [N, C, H, W] of std `schedule.start`."""
    return np.float32(schedule.start) * standard_normal(seeds, backend.sample_shape, START_DRAW)


def injected_noises(schedule: Schedule, backend: Backend, seeds: Sequence[int]) -> Noises:
    """What the schedule's injections add, in front of the move that each precedes."""
    noises: Noises = []
    noise, injections = None, 0
    for position, step in enumerate(schedule.steps):
        if isinstance(step, Inject):
            inverting = position == 0
            injections += not inverting
            draw = INVERSION_DRAW if inverting else START_DRAW + injections
            noise = np.float32(step.sigma) * standard_normal(seeds, backend.sample_shape, draw)
        else:
            noises.append(noise)
            noise = None
    return noises


def _play_on_device(
    schedule: Schedule, backend: DeviceBackend, x: np.ndarray, noises: Noises, labels: np.ndarray | None, on_move: OnMove | None
) -> np.ndarray:
    states = backend.play_moves(x, schedule.moves, noises, labels, every=on_move is not None)
    if not np.isfinite(states[-1]).all():  # it began at some move, which only all the states can tell
        for index, state in enumerate(backend.play_moves(x, schedule.moves, noises, labels, every=True)):
            _check_finite(state, schedule, index, backend.name)
    if on_move:
        for index, (move, state) in enumerate(zip(schedule.moves, states, strict=True)):
            on_move(index, move, state)
    return states[-1]


def _check_finite(state: np.ndarray, schedule: Schedule, index: int, backend: str) -> None:
    if np.isfinite(state).all():
        return
    bad = int(np.argmin(np.isfinite(state).reshape(len(state), -1).all(axis=1)))
    where = f"move {index + 1} of {schedule.nfe} ({schedule.moves[index]}) on backend {backend}"
    raise NonFiniteError(f"{where} gave NaN or infinity (first in sample {bad}); no image was made")
