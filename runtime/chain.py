"""The chain: plays a schedule on a backend. It knows no task and no library; a task knows no backend."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ..errors import NonFiniteError
from .backends.base import Backend, DeviceBackend
from .noise import INVERSION_DRAW, START_DRAW, standard_normal
from .pixels import to_uint8
from .schedule import SIGMA_MIN, Inject, Move, Schedule

OnMove = Callable[
    [int, Move, np.ndarray], None
]  # (index of the move, the move, the state after it [N, C, H, W])
Project = Callable[
    [np.ndarray], np.ndarray
]  # an image [N, C, H, W] → one near it that agrees with what is known
Noises = list[np.ndarray | None]  # per move: what is added to its input, float32 [N, C, H, W]


def play(
    schedule: Schedule,
    backend: Backend,
    seeds: Sequence[int],
    labels: np.ndarray | None = None,
    x: np.ndarray | None = None,
    on_move: OnMove | None = None,
    project: Project | None = None,
) -> np.ndarray:
    """The state after the schedule: float32 [N, C, H, W], not clipped.

    seeds: one integer per sample, from which all its noise comes. labels: int64 [N], exactly when the model has classes.
    x: float32 [N, C, H, W], the image (schedules that begin with an injection) or the state at level `schedule.start`;
    None draws a start of std `schedule.start` from the seeds. Raises NonFiniteError naming the first bad move.

    on_move is called after every move; on a device, once all have been played there. project is given the state whenever the
    schedule arrives at an image (level 0.002) and returns the image to go on from; a device hands its state over for that.
    """
    x = start_state(schedule, backend, seeds) if x is None else x
    noises = injected_noises(schedule, backend, seeds)
    for part in _parts(schedule) if project else [range(schedule.nfe)]:
        x = _play_part(schedule, part, backend, x, noises, labels, on_move)
        if project and schedule.moves[part[-1]].u == SIGMA_MIN:
            x = project(x)
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
        return to_uint8(
            _play_part(schedule, range(schedule.nfe), backend, x, noises, labels, None)
        )  # which says where
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


def _parts(schedule: Schedule) -> list[range]:
    """The moves between one arrival at an image and the next."""
    ends = [i + 1 for i, move in enumerate(schedule.moves) if move.u == SIGMA_MIN or i + 1 == schedule.nfe]
    return [range(start, end) for start, end in zip([0, *ends], ends, strict=False)]


def _play_part(
    schedule: Schedule,
    part: range,
    backend: Backend,
    x: np.ndarray,
    noises: Noises,
    labels: np.ndarray | None,
    on_move: OnMove | None,
) -> np.ndarray:
    """The state after these moves of the schedule."""
    if isinstance(backend, DeviceBackend):
        return _play_on_device(schedule, part, backend, x, noises, labels, on_move)
    for index in part:
        x = backend.play_move(x, noises[index], schedule.moves[index], labels)
        _check_finite(x, schedule, index, backend.name)
        if on_move:
            on_move(index, schedule.moves[index], x)
    return x


def _play_on_device(
    schedule: Schedule,
    part: range,
    backend: DeviceBackend,
    x: np.ndarray,
    noises: Noises,
    labels: np.ndarray | None,
    on_move: OnMove | None,
) -> np.ndarray:
    moves, added = schedule.moves[part.start : part.stop], noises[part.start : part.stop]
    states = backend.play_moves(x, moves, added, labels, every=on_move is not None)
    if not np.isfinite(states[-1]).all():  # it began at some move, which only all the states can tell
        for index, state in zip(part, backend.play_moves(x, moves, added, labels, every=True), strict=True):
            _check_finite(state, schedule, index, backend.name)
    if on_move:
        for index, move, state in zip(part, moves, states, strict=True):
            on_move(index, move, state)
    return states[-1]


def _check_finite(state: np.ndarray, schedule: Schedule, index: int, backend: str) -> None:
    if np.isfinite(state).all():
        return
    bad = int(np.argmin(np.isfinite(state).reshape(len(state), -1).all(axis=1)))
    where = f"move {index + 1} of {schedule.nfe} ({schedule.moves[index]}) on backend {backend}"
    raise NonFiniteError(f"{where} gave NaN or infinity (first in sample {bad}); no image was made")
