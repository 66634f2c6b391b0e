"""The answers of a loaded model to the requests of a server. This module does not depend on Triton.

A request is a dict: tensor name → array with one row per sample. Samples of all requests with the same
program are played together in one network call. The result of a sample does not depend on the others, because
each has its own seed.
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
from ..runtime.calls import NetworkCall
from ..runtime.pipeline import BCM
from ..runtime.pixels import in_signed_range, parse_value_range, to_uint8
from ..runtime.schedule import SIGMA_MAX, SIGMA_MIN, Move
from ..runtime.tasks.trace import picture
from .signatures import MOST_FRAMES, MOST_NFE

Values = Mapping[str, np.ndarray]  # tensor name → [N, …]
Outputs = dict[str, np.ndarray]  # tensor name → [N, …]
# play(program, inputs): the inputs that all samples share, as single values, and the other inputs → outputs
Play = Callable[[dict[str, Any], Values], Outputs]


def answer(play: Play, shared: Sequence[str], requests: Sequence[Values]) -> list[Values | BcmError]:
    """Return the outputs of each request, in order, or the error if a request fails.

    A request that fails does not affect the others.

    shared: the names of inputs that must be equal for samples that are played together.
    """
    try:
        return [*_play_together(play, shared, requests)]
    except BcmError as error:
        if len(requests) == 1:
            return [error]
        return [response for request in requests for response in answer(play, shared, [request])]


def _play_together(play: Play, shared: Sequence[str], requests: Sequence[Values]) -> list[Outputs]:
    """Return the outputs of each request. Raises BcmError if one of them fails."""
    responses: list[Outputs] = [{} for _ in requests]
    for (shared_values, names), rows in _groups(shared, requests).items():
        program = {
            name: value for name, value in zip(shared, shared_values, strict=True) if value is not None
        }
        inputs = {name: np.stack([requests[index][name][row] for index, row in rows]) for name in names}
        for name, results in play(program, inputs).items():
            for (index, row), result in zip(rows, results, strict=True):
                _store(responses[index], name, row, result, _row_count(requests[index]))
    return responses


# (the values of the shared inputs, the names of the other inputs)
_Key = tuple[tuple[Any, ...], tuple[str, ...]]


def _groups(shared: Sequence[str], requests: Sequence[Values]) -> dict[_Key, list[tuple[int, int]]]:
    """Return the samples that are played together, as pairs (index of the request, row)."""
    groups: dict[_Key, list[tuple[int, int]]] = defaultdict(list)
    for index, request in enumerate(requests):
        count = _row_count(request)
        names = tuple(sorted(set(request) - set(shared)))
        columns = [request[name].tolist() if name in request else [None] * count for name in shared]
        for row in range(count):
            shared_values = tuple(column[row] for column in columns)
            groups[shared_values, names].append((index, row))
    return groups


def _store(response: Outputs, name: str, row: int, result: np.ndarray, row_count: int) -> None:
    """Write the result of one sample to its row of an output, which is created at the first row."""
    output = response.setdefault(name, np.empty((row_count, *result.shape), result.dtype))
    if output.shape[1:] != result.shape:
        raise InputError("samples of one request must have the same number of frames")
    output[row] = result


def _row_count(request: Values) -> int:
    return len(next(iter(request.values())))


# ---- tasks


def _generate(bcm: BCM, program: dict[str, Any], inputs: Values) -> Outputs:
    options = _options(bcm, program, inputs)
    return images(bcm.generate(**options, latents=inputs.get("latent")))


def _invert(bcm: BCM, program: dict[str, Any], inputs: Values) -> Outputs:
    return {"latent": bcm.invert(inputs["image"], **_options(bcm, program, inputs))}


def _reconstruct(bcm: BCM, program: dict[str, Any], inputs: Values) -> Outputs:
    return images(bcm.reconstruct(inputs["image"], **_options(bcm, program, inputs)))


def _interpolate(bcm: BCM, program: dict[str, Any], inputs: Values) -> Outputs:
    frames = program.get("frames", 2)
    if not 2 <= frames <= MOST_FRAMES:
        raise InputError(f"frames must lie between 2 and {MOST_FRAMES}, not {frames}")
    options = _options(bcm, program, inputs)
    path = bcm.interpolate(inputs["image"], inputs["image_b"], **options, labels_b=inputs.get("label_b"))
    return images(path)


def _inpaint(bcm: BCM, program: dict[str, Any], inputs: Values) -> Outputs:
    return images(bcm.inpaint(inputs["image"], inputs["mask"], **_options(bcm, program, inputs)))


@dataclass(frozen=True)
class Task:
    """A task of a server."""

    play: Callable[[BCM, dict[str, Any], Values], Outputs]
    # The inputs that must be equal for samples that are played together.
    shared: tuple[str, ...] = ("schedule",)

    def answer(self, bcm: BCM, requests: Sequence[Values]) -> list[Values | BcmError]:
        """Return the outputs of each request, in order, or the error if a request fails."""
        checked = [_with_signed_images(request) for request in requests]
        valid = [request for request in checked if not isinstance(request, BcmError)]
        responses = iter(answer(partial(self.play, bcm), self.shared, valid))
        return [request if isinstance(request, BcmError) else next(responses) for request in checked]


def _with_signed_images(request: Values) -> Values | BcmError:
    """Return a request with images in [-1, 1] and without value_range, or the error if the range is unclear.

    The images of each request are checked before requests are merged, so that the others do not affect the
    check.
    """
    try:
        value_ranges = set(request["value_range"].tolist()) if "value_range" in request else set()
        if len(value_ranges) > 1:
            raise InputError("samples of one request must have the same value_range")
        value_range = parse_value_range(value_ranges.pop()) if value_ranges else None
        checked = {name: values for name, values in request.items() if name != "value_range"}
        for name in ("image", "image_b"):
            if name in request:
                checked[name] = in_signed_range(request[name], "images", value_range)
    except BcmError as error:
        return error
    return checked


TASKS = {
    "generate": Task(_generate),
    "invert": Task(_invert, ("inversion",)),
    "reconstruct": Task(_reconstruct, ("inversion", "schedule")),
    "interpolate": Task(_interpolate, ("frames", "inversion", "schedule")),
    "inpaint": Task(_inpaint),
}


def images(result: np.ndarray) -> Outputs:
    """Return images in both forms that a client may request: as floats and as pixels."""
    return {"result": result, "pixels": to_uint8(result)}


def check_program(bcm: BCM, program: dict[str, Any]) -> dict[str, Any]:
    """Return the program. Raises ScheduleError if a schedule has more than MOST_NFE network calls."""
    for name in {"schedule", "inversion"} & set(program):
        nfe = bcm.schedule(program[name]).nfe
        if nfe > MOST_NFE:
            raise ScheduleError(f"{name} takes {nfe} network calls; this server plays up to {MOST_NFE}")
    return program


def _options(bcm: BCM, program: dict[str, Any], inputs: Values) -> dict[str, Any]:
    """Return the keyword arguments of a method of BCM that all tasks have."""
    return {**check_program(bcm, program), "seed": inputs["seed"], "labels": inputs.get("label")}


def stream(bcm: BCM, request: Values, send: Callable[[Outputs], None]) -> None:
    """Generate images, and send the outputs of `stream_signature` after every network call."""
    schedules = set(request["schedule"].tolist()) if "schedule" in request else set()
    if len(schedules) > 1:
        raise InputError("samples of one stream must have the same schedule")

    program = {"schedule": schedules.pop()} if schedules else {}
    options = _options(bcm, program, request)
    nfe = bcm.schedule(program.get("schedule", "one-step")).nfe

    def on_move(call: NetworkCall) -> None:
        move, state = call.move, call.state
        image = state if move.u == SIGMA_MIN else picture(state, move.u)
        column = (len(state), 1)
        send(
            {
                "result": np.clip(image, -1, 1),
                "move": np.full(column, call.index % nfe + 1, np.int32),
                "level": np.full(column, move.u, np.float32),
            }
        )

    bcm.generate(**options, latents=request.get("latent"), on_move=on_move)


# ---- single moves


def answer_moves(backend: Backend, direction: str, requests: Sequence[Values]) -> list[Values | BcmError]:
    """Return f(x + noise, t, u, label) of each request, as the graph of a direction computes it.

    Samples with equal levels share a network call. A request that fails gets its error in place of the
    outputs.
    """

    def play(levels: dict[str, Any], inputs: Values) -> Outputs:
        move = _check_move(levels["t"], levels["u"], direction)
        if not all(np.isfinite(inputs[name]).all() for name in ("x", "noise") if name in inputs):
            raise ImageError("x and noise must be finite")
        labels = check_labels(inputs.get("label"), len(inputs["x"]), backend.num_classes)
        state = backend.play_move(inputs["x"], inputs.get("noise"), move, labels)
        if not np.isfinite(state).all():
            raise NonFiniteError(
                f"the move from {move.t:g} to {move.u:g} on backend {backend.name} gave NaN or infinity"
            )
        return {"x_u": state}

    return answer(play, ("t", "u"), requests)


def _check_move(t: float, u: float, direction: str) -> Move:
    """Return a move. Raises ScheduleError for invalid levels, and for a move of the other direction."""
    if not all(SIGMA_MIN <= level <= SIGMA_MAX for level in (t, u)):
        raise ScheduleError(
            f"levels must lie in [{SIGMA_MIN}, {SIGMA_MAX:g}]; these are t = {t:g}, u = {u:g}"
        )
    move = Move(t, u)
    if t != u and move.graph != direction:
        raise ScheduleError(f"the move from {t:g} to {u:g} must be sent to the model bcm_{move.graph}")
    return move
