"""The largest activations over trajectories, tensor by tensor, and the file they are kept in.

calibration.json belongs to the float32 graphs it was measured on (their sha256 are in it) and is refused for others. It is
all that a graph with 8-bit integers needs from data, so it can be used again without the data.
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

CALIBRATION = "calibration.json"  # in a bundle
FP16_MAX = 65504.0
SCHEMA = 1


@dataclass(frozen=True)
class Calibration:
    """graphs: file name → sha256 of the float32 graphs and their weights; data: sha256 of the samples; ranges: direction → tensor →
    (smallest, largest value), in the graph's order; kept: layers that 8 bits leave in float32, None while not chosen."""

    graphs: dict[str, str]
    data: str
    source: str
    images: int
    schedules: list[str]
    ranges: dict[str, dict[str, tuple[float, float]]]
    kept: list[str] | None = None

    def to_json(self) -> str:
        return json.dumps({"schema": SCHEMA, **asdict(self)}, indent=1) + "\n"

    def check_fits(self, bundle: Bundle) -> None:
        """Raises CalibrationError if this was measured on other graphs than the bundle's."""
        if self.graphs != bundle.hashes("fp32"):
            raise CalibrationError(
                f"this calibration ({self.source}) was measured on another model's graphs; calibrate this one"
            )


def read_calibration(path: Path) -> Calibration:
    """A calibration file. Raises CalibrationError if it is none."""
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
    """Play the schedules on the samples with every tensor of the float32 graphs watched. report(network calls done, calls in all).

    Raises CalibrationError if a direction is never played.
    """
    with temporary_folder() as folder:
        backend = _WatchedBackend(bundle, folder)
        play_all(backend, schedules, samples, report)
        ranges = {direction: backend.ranges(direction) for direction in DIRECTIONS}
    texts = [str(schedule) for schedule in schedules]
    return Calibration(
        bundle.hashes("fp32"), samples.digest, samples.source, len(samples.images), texts, ranges
    )


class _WatchedBackend:
    """Plays the float32 graphs with a ReduceMin and a ReduceMax on every tensor (onnxruntime.quantization's MinMaxCalibrater)."""

    name, device, precision = "onnxruntime", "CPU", "fp32"

    def __init__(self, bundle: Bundle, folder: Path) -> None:
        self.sample_shape, self.num_classes = (
            bundle.manifest.model.sample_shape,
            bundle.manifest.model.num_classes,
        )
        self._graphs = bundle.graphs("fp32")
        self._folder = folder  # for the watched graphs, which take their weights along
        self._calibrators: dict[str, MinMaxCalibrater] = {}

    def play_move(
        self, x: np.ndarray, noise: np.ndarray | None, move: Move, labels: np.ndarray | None
    ) -> np.ndarray:
        calibrator = self._calibrator(move.graph)
        assert calibrator.infer_session
        outputs = calibrator.infer_session.run(None, graph_inputs(x, noise, move, labels))
        calibrator.intermediate_outputs.append(outputs)
        return np.asarray(outputs[0])  # the graph's own output; the watched values follow

    def ranges(self, direction: str) -> dict[str, tuple[float, float]]:
        """Tensor → (smallest, largest value) so far, in the graph's order."""
        if direction not in self._calibrators:
            raise CalibrationError(
                f"no schedule plays the {direction} graph; calibrate with one that generates and one that inverts"
            )
        found = self._calibrators[direction].compute_data().data
        graph = onnx.load(self._graphs[direction], load_external_data=False).graph
        order = [value.name for value in graph.input] + [name for node in graph.node for name in node.output]
        return {name: _pair(found[name].range_value) for name in order if name in found}

    def close(self) -> None:
        self._calibrators.clear()

    def _calibrator(self, direction: str) -> MinMaxCalibrater:
        if direction not in self._calibrators:
            watched = self._folder / f"{direction}.onnx"
            calibrator = MinMaxCalibrater(
                self._graphs[direction], augmented_model_path=str(watched), use_external_data_format=True
            )
            calibrator.augment_graph()
            calibrator.create_inference_session()
            self._calibrators[direction] = calibrator
        return self._calibrators[direction]


def _pair(values: Any) -> tuple[float, float]:
    low, high = (float(np.asarray(value).reshape(-1)[0]) for value in values)
    return low, high


def _from_json(values: Any) -> Calibration:
    if values["schema"] != SCHEMA:
        raise ValueError(f"schema {values['schema']}, this package reads {SCHEMA}")
    ranges = {
        d: {str(name): (float(low), float(high)) for name, (low, high) in values["ranges"][d].items()}
        for d in DIRECTIONS
    }
    if not all(
        np.isfinite(pair).all() and pair[0] <= pair[1]
        for tensors in ranges.values()
        for pair in tensors.values()
    ):
        raise ValueError("a range is not finite, or upside down")
    kept = values["kept"]
    return Calibration(
        {str(name): str(digest) for name, digest in values["graphs"].items()},
        str(values["data"]),
        str(values["source"]),
        int(values["images"]),
        [str(text) for text in values["schedules"]],
        ranges,
        None if kept is None else [str(layer) for layer in kept],
    )
