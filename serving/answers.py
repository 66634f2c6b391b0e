"""Requests of a server, answered by a loaded model. Nothing here knows Triton.

A request is a dict from tensor names to arrays with one row per sample. Samples of all requests that want the same program
share network calls, whatever request they came in; each has its own seed, so that company changes nothing of it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from ..errors import BcmError, ImageError, InputError, NonFiniteError, ScheduleError
from ..runtime.arguments import check_labels
from ..runtime.backends.base import Backend
from ..runtime.pipeline import BCM
from ..runtime.pixels import in_signed_range, parse_value_range, to_uint8
from ..runtime.schedule import SIGMA_MAX, SIGMA_MIN, Move
from ..runtime.tasks.trace import picture
from .signatures import MOST_FRAMES, MOST_NFE

Values = Mapping[str, np.ndarray]  # tensor name → [N, …]
Play = Callable[
    [dict[str, Any], Values], dict[str, np.ndarray]
]  # what samples share, their other inputs → outputs


def answer(play: Play, shared: Sequence[str], requests: Sequence[Values]) -> list[Values | BcmError]:
    """What each request gets. One that cannot be answered gets its error, and costs the others their company, not their answer.

    shared: the inputs that samples must have in common to be played together.
    """
    try:
        return [*_together(play, shared, requests)]
    except BcmError as error:
        if len(requests) == 1:
            return [error]
        return [given for request in requests for given in answer(play, shared, [request])]


def _together(play: Play, shared: Sequence[str], requests: Sequence[Values]) -> list[dict[str, np.ndarray]]:
    """Nothing for no requests."""
    members: dict[tuple[Any, ...], list[tuple[int, int]]] = defaultdict(
        list
    )  # shared values and kinds of inputs → (request, row)
    for i, request in enumerate(requests):
        columns = [request[name].tolist() if name in request else [None] * _rows(request) for name in shared]
        kinds = tuple(sorted(set(request) - set(shared)))
        for row in range(_rows(request)):
            members[tuple(column[row] for column in columns), kinds].append((i, row))
    answers: list[dict[str, np.ndarray]] = [{} for _ in requests]
    for (values, kinds), where in members.items():
        given = {name: np.stack([requests[i][name][row] for i, row in where]) for name in kinds}
        asked = {name: value for name, value in zip(shared, values, strict=True) if value is not None}
        for name, found in play(asked, given).items():
            for (i, row), value in zip(where, found, strict=True):
                _place(answers[i], name, row, value, _rows(requests[i]))
    return answers


def _place(of: dict[str, np.ndarray], name: str, row: int, value: np.ndarray, rows: int) -> None:
    whole = of.setdefault(name, np.empty((rows, *value.shape), value.dtype))
    if whole.shape[1:] != value.shape:
        raise InputError("samples of one request must have the same number of frames")
    whole[row] = value


def _rows(request: Values) -> int:
    return len(next(iter(request.values())))


# ---- the tasks


def _generate(bcm: BCM, program: dict[str, Any], given: Values) -> dict[str, np.ndarray]:
    return images(bcm.generate(**check_program(bcm, program), **_seeds(given), latents=given.get("latent")))


def _invert(bcm: BCM, program: dict[str, Any], given: Values) -> dict[str, np.ndarray]:
    return {"latent": bcm.invert(given["image"], **check_program(bcm, program), **_seeds(given))}


def _reconstruct(bcm: BCM, program: dict[str, Any], given: Values) -> dict[str, np.ndarray]:
    return images(bcm.reconstruct(given["image"], **check_program(bcm, program), **_seeds(given)))


def _interpolate(bcm: BCM, program: dict[str, Any], given: Values) -> dict[str, np.ndarray]:
    frames = program.get("frames", 2)
    if not 2 <= frames <= MOST_FRAMES:
        raise InputError(f"frames must lie between 2 and {MOST_FRAMES}; this asks for {frames}")
    path = bcm.interpolate(
        given["image"],
        given["image_b"],
        **check_program(bcm, program),
        **_seeds(given),
        labels_b=given.get("label_b"),
    )
    return images(path)


def _inpaint(bcm: BCM, program: dict[str, Any], given: Values) -> dict[str, np.ndarray]:
    return images(bcm.inpaint(given["image"], given["mask"], **check_program(bcm, program), **_seeds(given)))


@dataclass(frozen=True)
class Task:
    play: Callable[[BCM, dict[str, Any], Values], dict[str, np.ndarray]]
    shared: tuple[str, ...] = ("schedule",)

    def answer(self, bcm: BCM, requests: Sequence[Values]) -> list[Values | BcmError]:
        checked = [_with_signed_images(request) for request in requests]
        answers = iter(
            answer(partial(self.play, bcm), self.shared, [r for r in checked if not isinstance(r, BcmError)])
        )
        return [request if isinstance(request, BcmError) else next(answers) for request in checked]


def _with_signed_images(request: Values) -> Values | BcmError:
    """The request with its images in [-1, 1], whatever other requests it is played with; an error if its range is unclear."""
    try:
        ranges = {*request["value_range"].tolist()} if "value_range" in request else set()
        if len(ranges) > 1:
            raise InputError("samples of one request must have the same value_range")
        value_range = parse_value_range(ranges.pop()) if ranges else None
        images = {
            name: in_signed_range(request[name], "images", value_range)
            for name in ("image", "image_b")
            if name in request
        }
    except BcmError as error:
        return error
    return {**{name: values for name, values in request.items() if name != "value_range"}, **images}


TASKS = {
    "generate": Task(_generate),
    "invert": Task(_invert),
    "reconstruct": Task(_reconstruct, ("inversion", "schedule")),
    "interpolate": Task(_interpolate, ("frames", "inversion", "schedule")),
    "inpaint": Task(_inpaint),
}


def images(result: np.ndarray) -> dict[str, np.ndarray]:
    """The two forms of images that a client may ask for."""
    return {"result": result, "pixels": to_uint8(result)}


def check_program(bcm: BCM, program: dict[str, Any]) -> dict[str, Any]:
    """The program, if its schedules are not longer than a client may ask for. Raises ScheduleError."""
    for name in {"schedule", "inversion"} & set(program):
        if (nfe := bcm.schedule(program[name]).nfe) > MOST_NFE:
            raise ScheduleError(f"{name} takes {nfe} network calls; this server plays up to {MOST_NFE}")
    return program


def _seeds(given: Values) -> dict[str, Any]:
    return {"seed": given["seed"], "labels": given.get("label")}


def stream(bcm: BCM, request: Values, send: Callable[[dict[str, np.ndarray]], None]) -> None:
    """A generation that sends the outputs of `stream_signature` after every network call."""
    programs = set(request["schedule"].tolist()) if "schedule" in request else set()
    if len(programs) > 1:
        raise InputError("samples of one stream must have the same schedule")

    def on_move(index: int, move: Move, state: np.ndarray) -> None:
        shown = np.clip(state if move.u == SIGMA_MIN else picture(state, move.u), -1, 1)
        n = len(state)
        send(
            {
                "result": shown,
                "move": np.full((n, 1), index + 1, np.int32),
                "level": np.full((n, 1), move.u, np.float32),
            }
        )

    program = {"schedule": programs.pop()} if programs else {}
    bcm.generate(
        **check_program(bcm, program), **_seeds(request), latents=request.get("latent"), on_move=on_move
    )


# ---- single moves


def answer_moves(backend: Backend, direction: str, requests: Sequence[Values]) -> list[Values | BcmError]:
    """f(x + noise, t, u, label) of each request, as the graph of a direction computes it. Rows of equal levels share a network call."""

    def play(levels: dict[str, Any], given: Values) -> dict[str, np.ndarray]:
        move = _check_move(levels["t"], levels["u"], direction)
        if not all(np.isfinite(given[name]).all() for name in ("x", "noise") if name in given):
            raise ImageError("x and noise must be finite")
        labels = check_labels(given.get("label"), len(given["x"]), backend.num_classes)
        moved = backend.play_move(given["x"], given.get("noise"), move, labels)
        if not np.isfinite(moved).all():
            raise NonFiniteError(
                f"the move from {move.t:g} to {move.u:g} on backend {backend.name} gave NaN or infinity"
            )
        return {"x_u": moved}

    return answer(play, ("t", "u"), requests)


def _check_move(t: float, u: float, direction: str) -> Move:
    if not all(SIGMA_MIN <= level <= SIGMA_MAX for level in (t, u)):
        raise ScheduleError(
            f"levels must lie in [{SIGMA_MIN}, {SIGMA_MAX:g}]; these are t = {t:g}, u = {u:g}"
        )
    move = Move(t, u)
    if t != u and move.graph != direction:
        raise ScheduleError(f"a move from {t:g} to {u:g} is one of bcm_{move.graph}")
    return move
