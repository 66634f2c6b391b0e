"""Bisecting: the first layer of a precision's graphs that computes something else than the float32 reference.

The schedules of a recording are played move by move, each from the recorded state, so that errors of earlier moves do not mix in. The
first move that strays is played once more with every tensor visible (layer_errors.py), and the first that leaves the tolerance names the
layer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..calibration.ranges import FP16_MAX
from ..errors import ParityError
from ..runtime.backends import CHECKING, open_backend
from ..runtime.backends.base import Backend, graph_inputs
from ..runtime.batches import Batch
from ..runtime.chain import play
from ..runtime.checks.parity import compare
from ..runtime.checks.recording import Recording
from ..runtime.schedule import Move, parse_schedule
from ..runtime.storage.bundle import Bundle
from .layer_errors import QUANTISERS, LayerError, compare_layers, relative_l2

GROWING = 3  # layers named for what they add to the error


@dataclass(frozen=True)
class Stray:
    """The first layer that leaves the tolerance. alone: whether the move strays by itself; otherwise errors of several moves add up, and
    this is the move with the largest. output_error, tolerance: relative L2; growing: where the error grows most, largest first."""

    precision: str
    graph: str
    schedule: str
    move: str
    alone: bool
    output_error: float
    tolerance: float
    first: LayerError
    growing: list[LayerError]
    hint: str

    @property
    def node(self) -> str:
        return self.first.node

    @property
    def layer(self) -> str:
        return self.first.layer

    def __str__(self) -> str:
        first = self.first
        which = "" if self.alone else "; no move strays alone, this is the one with the largest error"
        error = f"relative L2 {first.error:.1e}" if math.isfinite(first.error) else "NaN or infinity"
        growing = ", ".join(f"{one.node} ({one.before:.1e} → {one.error:.1e})" for one in self.growing)
        lines = [
            f"{self.precision}: the first layer to stray is {first.layer} (node {first.node}, {first.operator})",
            f"  in move {self.move} of {self.schedule!r} ({self.graph}{which})",
            f"  {error} there, {first.before:.1e} in what goes in, {self.output_error:.1e} in what the move gives; "
            f"tolerance {self.tolerance:.1e}",
            f"  the error grows most at {growing}" if growing else "",
            f"  hint: {self.hint}",
        ]
        return "\n".join(line for line in lines if line)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class _Call:
    """A network call on the recorded state. truth: what was recorded after it; error: relative L2 of the candidate's output; row: the
    sample that strays most."""

    schedule: str
    move: Move
    feed: dict[str, np.ndarray]
    truth: np.ndarray
    error: float
    row: int


def first_stray_layer(bundle: Bundle, precision: str, recording: Recording, bound: float) -> Stray | None:
    """The first layer of a precision's graphs whose output leaves the bound (relative L2), or None where whole schedules keep to it.

    Raises ParityError where no layer is to blame: the reference strays from the recording as well, or the error is gone as soon as
    layers are looked at.
    """
    candidate = open_backend(CHECKING.get(precision, "onnxruntime"), bundle, precision)
    try:
        call = _first_stray_call(candidate, recording, bound)
    finally:
        candidate.close()
    if call is None:
        return None
    alone = call.error > bound
    path = bundle.graphs(precision)[call.move.graph]
    for rows in (
        slice(call.row, call.row + 1),
        slice(None),
    ):  # one sample is enough, unless what is wrong needs several
        layers, output = compare_layers(
            bundle, precision, call.move.graph, {name: values[rows] for name, values in call.feed.items()}
        )
        tolerance = bound if alone else min(bound, layers[-1].error)
        strays = [one for one in layers if one.error >= tolerance > 0]
        if strays:
            first = next((one for one in strays if math.isinf(one.error)), strays[0])
            growing = sorted(
                (one for one in layers if one.before < one.error < math.inf),
                key=lambda one: one.before - one.error,
            )
            hint = _hint(precision, first, growing)
            where = (precision, path.name, call.schedule, str(call.move), alone)
            return Stray(*where, call.error, tolerance, first, growing[:GROWING], hint)
    raise _nothing_to_blame(path, call, relative_l2(output, call.truth) <= bound)


class _Recorded:
    """A backend that gives the recorded states, and notes how far the candidate strays from each when it starts from the one before."""

    name, device, precision = "recording", "", "fp32"

    def __init__(self, candidate: Backend, schedule: str, states: np.ndarray) -> None:
        self.sample_shape, self.num_classes = candidate.sample_shape, candidate.num_classes
        self.calls: list[_Call] = []
        self._candidate, self._schedule, self._states = candidate, schedule, states

    def play_move(
        self, x: np.ndarray, noise: np.ndarray | None, move: Move, labels: np.ndarray | None
    ) -> np.ndarray:
        truth = self._states[len(self.calls)]
        state = self._candidate.play_move(x, noise, move, labels)
        row = int(np.argmax([relative_l2(one, other) for one, other in zip(state, truth, strict=True)]))
        feed = graph_inputs(x, noise, move, labels)
        self.calls.append(_Call(self._schedule, move, feed, truth, relative_l2(state, truth), row))
        return truth

    def close(self) -> None:
        """Nothing of its own to free."""


def _first_stray_call(candidate: Backend, recording: Recording, bound: float) -> _Call | None:
    """The first call beyond the bound; where there is none, but errors add up to more over a schedule, the worst."""
    calls: list[_Call] = []
    for text, states in recording.states.items():
        schedule, recorded = parse_schedule(text), _Recorded(candidate, text, states)
        play(
            schedule,
            recorded,
            Batch(recording.seeds, recording.labels),
            recording.images if schedule.from_image else None,
        )
        calls += recorded.calls
        if stray := next((call for call in recorded.calls if call.error > bound), None):
            return stray
    if all(move.ok for move in compare(candidate, recording, (len(recording.seeds),), bound)):
        return None
    return max(calls, key=lambda call: call.error)


def _hint(precision: str, first: LayerError, growing: Sequence[LayerError]) -> str:
    """What to do about a layer that strays."""
    if math.isinf(first.error) and precision == "fp16":
        reached = f"the fp32 reference reaches {first.largest:.3g} there, float16 ends at {FP16_MAX:.0f}"
        return f"{reached}; export bf16, which has float32's range"
    if precision == "fp32":
        return "what this layer computes is not what torch does: see its function in export/network_graph.py, and its weights in the graph"
    if precision == "int8":
        layer = next(
            (one.layer for one in (first, *growing) if one.operator in ("Conv", *QUANTISERS)), first.layer
        )
        return f'keep {layer} in float32: add it to "kept" in a copy of calibration.json, and calibrate with --calibration COPY'
    return f"keep {first.layer} in float32, or export fp32; if nothing but this layer strays, look at its weights"


def _nothing_to_blame(path: Path, call: _Call, vanished: bool) -> ParityError:
    what = f"{path}: {call.move} of {call.schedule!r} strays by a relative L2 of {call.error:.1e}, but no layer does. "
    if vanished:
        return ParityError(
            f"{what}With every tensor visible the error is gone, so it comes from an optimisation that joins layers",
            [],
        )
    return ParityError(
        f"{what}The reference strays from the recording as well: the weights are not those that were recorded",
        [],
    )
