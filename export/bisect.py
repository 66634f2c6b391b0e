"""Find the first layer of a precision's graphs whose output differs from the float32 reference.

The schedules of a recording are played move by move, each from the recorded state, so that the errors of
earlier moves do not add up. The first move outside the bound is played again with every tensor as an output
(layer_errors.py). The first tensor outside the tolerance names the layer.
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
from ..runtime.backends import checking_backend, open_backend
from ..runtime.backends.base import Backend, graph_inputs
from ..runtime.batches import Batch
from ..runtime.chain import play
from ..runtime.checks.parity import compare
from ..runtime.checks.recording import Recording
from ..runtime.schedule import Move, parse_schedule
from ..runtime.storage.bundle import Bundle
from ..runtime.storage.manifest import CALIBRATED, ON_GPUS
from .layer_errors import QUANTISERS, LayerError, compare_layers, relative_error

GROWING = 3  # how many layers are named at which the error grows most


@dataclass(frozen=True)
class StrayLayer:
    """The first layer whose error exceeds the tolerance."""

    precision: str
    # The file name of the graph.
    graph: str
    # The schedule and the move in which the error was found, as text.
    schedule: str
    move: str
    # Whether this move exceeds the bound by itself. Otherwise only the errors of several moves together do,
    # and this is the move with the largest.
    alone: bool
    # The relative L2 error of the move's output.
    output_error: float
    # The relative L2 error that a layer may have.
    tolerance: float
    first: LayerError
    # The layers at which the error grows most, the largest growth first.
    growing: list[LayerError]
    # What the user can do about the error.
    hint: str

    @property
    def node(self) -> str:
        """The name of the layer's node in the graph."""
        return self.first.node

    @property
    def layer(self) -> str:
        """The path of the torch module."""
        return self.first.layer

    def __str__(self) -> str:
        first = self.first
        error = f"relative L2 {first.error:.1e}" if math.isfinite(first.error) else "NaN or infinity"
        note = "" if self.alone else "; no move exceeds the bound by itself, this one has the largest error"
        lines = [
            f"{self.precision}: the first layer outside the tolerance is {first.layer} "
            f"(node {first.node}, {first.operator})",
            f"  in move {self.move} of {self.schedule!r} ({self.graph}{note})",
            f"  {error} in its output, {first.before:.1e} in its inputs, "
            f"{self.output_error:.1e} in the output of the move; tolerance {self.tolerance:.1e}",
        ]
        if self.growing:
            places = [f"{layer.node} ({layer.before:.1e} → {layer.error:.1e})" for layer in self.growing]
            lines.append(f"  the error grows most at {', '.join(places)}")
        lines.append(f"  hint: {self.hint}")
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """Return all fields as a dictionary of JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class _Call:
    """A network call that starts from the recorded state."""

    schedule: str
    move: Move
    # The inputs of the graph, name → values.
    feed: dict[str, np.ndarray]
    # The recorded state after the call.
    expected: np.ndarray
    # The relative L2 error of the candidate's output.
    error: float
    # The row of the sample with the largest error.
    worst_row: int


def first_stray_layer(
    bundle: Bundle, precision: str, recording: Recording, bound: float
) -> StrayLayer | None:
    """Return the first layer whose error exceeds the bound, or None if whole schedules keep to it.

    bound: the largest relative L2 error that a move may have.

    Raises ParityError if no layer can be named: if the reference differs from the recording as well, or if
    the error disappears once every tensor is an output.
    """
    candidate = open_backend(checking_backend(precision) or "onnxruntime", bundle, precision)
    try:
        call = _first_stray_call(candidate, recording, bound)
    finally:
        candidate.close()
    if call is None:
        return None
    # One sample is enough, unless the error appears with several only.
    one_sample = slice(call.worst_row, call.worst_row + 1)
    stray, _ = _stray_in(bundle, precision, call, bound, one_sample)
    if stray:
        return stray
    stray, output = _stray_in(bundle, precision, call, bound, slice(None))
    if stray:
        return stray
    path = bundle.graphs(precision)[call.move.graph]
    raise _no_layer_error(path, call, error_disappeared=relative_error(output, call.expected) <= bound)


def _stray_in(
    bundle: Bundle, precision: str, call: _Call, bound: float, rows: slice
) -> tuple[StrayLayer | None, np.ndarray]:
    """Play these rows of a call with every tensor as an output.

    Returns the first layer outside the tolerance, or None, and the output of the call.
    """
    feed = {name: values[rows] for name, values in call.feed.items()}
    layers, output = compare_layers(bundle, precision, call.move.graph, feed)
    alone = call.error > bound
    tolerance = bound if alone else min(bound, layers[-1].error)
    outside = [layer for layer in layers if layer.error >= tolerance > 0]
    if not outside:
        return None, output
    first = next((layer for layer in outside if math.isinf(layer.error)), outside[0])
    growing = sorted(
        (layer for layer in layers if layer.before < layer.error < math.inf),
        key=lambda layer: layer.before - layer.error,
    )
    stray = StrayLayer(
        precision=precision,
        graph=bundle.graphs(precision)[call.move.graph].name,
        schedule=call.schedule,
        move=str(call.move),
        alone=alone,
        output_error=call.error,
        tolerance=tolerance,
        first=first,
        growing=growing[:GROWING],
        hint=_hint(precision, first, growing),
    )
    return stray, output


class _RecordedBackend:
    """A backend that returns the recorded states and measures the candidate at every move.

    The candidate starts each move from the recorded state before it.
    """

    name, device, precision = "recording", "", "fp32"

    def __init__(self, candidate: Backend, schedule: str, states: np.ndarray) -> None:
        self.sample_shape = candidate.sample_shape
        self.num_classes = candidate.num_classes
        self.calls: list[_Call] = []
        self._candidate = candidate
        self._schedule = schedule
        self._states = states

    def play_move(
        self, x: np.ndarray, noise: np.ndarray | None, move: Move, labels: np.ndarray | None
    ) -> np.ndarray:
        expected = self._states[len(self.calls)]
        actual = self._candidate.play_move(x, noise, move, labels)
        row_errors = [relative_error(row, expected[i]) for i, row in enumerate(actual)]
        call = _Call(
            self._schedule,
            move,
            graph_inputs(x, noise, move, labels),
            expected,
            error=relative_error(actual, expected),
            worst_row=int(np.argmax(row_errors)),
        )
        self.calls.append(call)
        return expected

    def close(self) -> None:
        """Do nothing: the candidate is closed by its owner."""


def _first_stray_call(candidate: Backend, recording: Recording, bound: float) -> _Call | None:
    """Return the first call outside the bound.

    If there is none, but whole schedules exceed the bound, return the call with the largest error. If they do
    not, return None.
    """
    calls: list[_Call] = []
    batch = Batch(recording.seeds, recording.labels)
    for text, states in recording.states.items():
        schedule = parse_schedule(text)
        recorded = _RecordedBackend(candidate, text, states)
        play(schedule, recorded, batch, recording.images if schedule.from_image else None)
        for call in recorded.calls:
            if call.error > bound:
                return call
        calls += recorded.calls
    if all(move.ok for move in compare(candidate, recording, (len(recording.seeds),), bound)):
        return None
    return max(calls, key=lambda call: call.error)


def _hint(precision: str, first: LayerError, growing: Sequence[LayerError]) -> str:
    """Return what the user can do about the error of a layer."""
    if math.isinf(first.error) and (precision == "fp16" or precision in ON_GPUS):
        return (
            f"the fp32 reference has values up to {first.largest:.3g} there, but the largest float16 is "
            f"{FP16_MAX:.0f}; export bf16, which has the range of float32"
        )
    if precision == "fp32":
        return (
            "this layer does not compute what torch does; "
            "check its function in export/network_graph.py or layer_graphs.py, and its weights in the graph"
        )
    if precision in CALIBRATED:
        quantised = [layer for layer in (first, *growing) if layer.operator in ("Conv", *QUANTISERS)]
        name = quantised[0].layer if quantised else first.layer
        return (
            f'do not quantise {name}: add it to "kept" in a copy of calibration.json, and calibrate with '
            "--calibration COPY"
        )
    return f"keep {first.layer} in float32, or export fp32; if no other layer has an error, check its weights"


def _no_layer_error(path: Path, call: _Call, error_disappeared: bool) -> ParityError:
    message = (
        f"{path}: {call.move} of {call.schedule!r} has a relative L2 error of {call.error:.1e}, but no layer "
        "exceeds the bound. "
    )
    if error_disappeared:
        message += "The error disappears when every tensor is an output, so it comes from fusing layers"
    else:
        message += "The reference differs from the recording, too: the recording was made with other weights"
    return ParityError(message, [])
