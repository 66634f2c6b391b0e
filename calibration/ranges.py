"""The smallest and largest value of every activation while schedules play, and the file that stores them.

calibration.json contains all that an 8-bit graph needs from data, so graphs can be written again without the
data. It contains the sha256 of the float32 graphs that were measured, and is refused for any others.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnxruntime.quantization.calibrate import MinMaxCalibrater

from ..errors import CalibrationError
from ..runtime.backends.base import graph_inputs
from ..runtime.machine.temporary import temporary_folder
from ..runtime.schedule import Move, Schedule
from ..runtime.storage.bundle import Bundle
from ..runtime.storage.manifest import DIRECTIONS
from .trajectories import Samples, play_all

CALIBRATION = "calibration.json"  # the name of the file in a bundle
FP16_MAX = 65504.0  # the largest float16
SCHEMA = 1

Ranges = dict[str, tuple[float, float]]  # tensor → (smallest, largest value)


@dataclass(frozen=True)
class Calibration:
    """The contents of calibration.json."""

    # File name → sha256 of the float32 graphs and their weights.
    graphs: dict[str, str]
    # The sha256 of the samples.
    data: str
    # Where the samples come from, shown to the user.
    source: str
    # The number of samples.
    images: int
    # The texts of the schedules that were played.
    schedules: list[str]
    # Direction → the ranges of its tensors, in the order of the graph.
    ranges: dict[str, Ranges]
    # The layers that stay float32 in the 8-bit graphs; None before they are chosen.
    kept: list[str] | None = None

    def to_json(self) -> str:
        """Return the text of calibration.json."""
        return json.dumps({"schema": SCHEMA, **asdict(self)}, indent=1) + "\n"

    def check_fits(self, bundle: Bundle) -> None:
        """Raise CalibrationError if other graphs than the bundle's were measured."""
        if self.graphs != bundle.hashes("fp32"):
            raise CalibrationError(
                f"this calibration ({self.source}) was measured on other graphs, of another model or of an "
                "earlier version of bcm-edge; calibrate this one"
            )


def read_calibration(path: Path) -> Calibration:
    """Read a calibration file. Raises CalibrationError if it cannot be read or is not valid."""
    try:
        return _from_json(json.loads(path.read_text()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CalibrationError(f"{path}: not a calibration file ({type(error).__name__}: {error})") from error


def measure_ranges(
    bundle: Bundle,
    schedules: Sequence[Schedule],
    samples: Samples,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> Calibration:
    """Play the schedules on the samples and measure every tensor of the float32 graphs.

    report: called with (network calls done, network calls in all) after each network call. Raises
    CalibrationError if the schedules never move in one of the directions.
    """
    with temporary_folder() as folder:
        backend = _WatchedBackend(bundle, folder)
        play_all(backend, schedules, samples, report)
        ranges = {direction: backend.ranges(direction) for direction in DIRECTIONS}
    return Calibration(
        graphs=bundle.hashes("fp32"),
        data=samples.digest,
        source=samples.source,
        images=len(samples.images),
        schedules=[str(schedule) for schedule in schedules],
        ranges=ranges,
    )


class _WatchedBackend:
    """Plays the float32 graphs with a ReduceMin and a ReduceMax added to every tensor.

    onnxruntime.quantization's MinMaxCalibrater adds them.
    """

    name, device, precision = "onnxruntime", "CPU", "fp32"

    def __init__(self, bundle: Bundle, folder: Path) -> None:
        """folder: where the extended graphs and copies of their weights are written."""
        model = bundle.manifest.model
        self.sample_shape = model.sample_shape
        self.num_classes = model.num_classes
        self._graphs = bundle.graphs("fp32")
        self._folder = folder
        self._calibrators: dict[str, MinMaxCalibrater] = {}

    def play_move(
        self, x: np.ndarray, noise: np.ndarray | None, move: Move, labels: np.ndarray | None
    ) -> np.ndarray:
        calibrator = self._calibrator(move.graph)
        assert calibrator.infer_session
        outputs = calibrator.infer_session.run(None, graph_inputs(x, noise, move, labels))
        calibrator.intermediate_outputs.append(outputs)
        return np.asarray(outputs[0])  # the graph's own output; the minima and maxima follow it

    def ranges(self, direction: str) -> Ranges:
        """Return the ranges of a direction's tensors so far, in the order of the graph."""
        if direction not in self._calibrators:
            raise CalibrationError(
                f"no schedule plays the {direction} graph; "
                "calibrate with one schedule that generates and one that inverts"
            )
        measured = self._calibrators[direction].compute_data().data
        graph = onnx.load(self._graphs[direction], load_external_data=False).graph
        names = [value.name for value in graph.input]
        for node in graph.node:
            names += node.output
        return {name: _as_floats(measured[name].range_value) for name in names if name in measured}

    def close(self) -> None:
        self._calibrators.clear()

    def _calibrator(self, direction: str) -> MinMaxCalibrater:
        if direction not in self._calibrators:
            calibrator = MinMaxCalibrater(
                self._graphs[direction],
                augmented_model_path=str(self._folder / f"{direction}.onnx"),
                use_external_data_format=True,
            )
            calibrator.augment_graph()
            calibrator.create_inference_session()
            self._calibrators[direction] = calibrator
        return self._calibrators[direction]


def _as_floats(minimum_and_maximum: Any) -> tuple[float, float]:
    low, high = (float(np.asarray(value).reshape(-1)[0]) for value in minimum_and_maximum)
    return low, high


def _from_json(values: Any) -> Calibration:
    if values["schema"] != SCHEMA:
        raise ValueError(f"schema {values['schema']}; this package reads schema {SCHEMA}")
    layers = values["kept"]
    return Calibration(
        graphs={str(name): str(digest) for name, digest in values["graphs"].items()},
        data=str(values["data"]),
        source=str(values["source"]),
        images=int(values["images"]),
        schedules=[str(text) for text in values["schedules"]],
        ranges={direction: _ranges_from_json(values["ranges"][direction]) for direction in DIRECTIONS},
        kept=None if layers is None else [str(layer) for layer in layers],
    )


def _ranges_from_json(values: Any) -> Ranges:
    ranges: Ranges = {}
    for name, (low, high) in values.items():
        low, high = float(low), float(high)
        if not (np.isfinite(low) and np.isfinite(high)):
            raise ValueError(f"the range of {name} is not finite")
        if low > high:
            raise ValueError(f"the range of {name} has a minimum above its maximum")
        ranges[str(name)] = (low, high)
    return ranges
