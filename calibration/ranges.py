"""The largest activations over trajectories, tensor by tensor, and the file they are kept in.

calibration.json belongs to the float32 graphs it was measured on (their sha256 are in it) and is refused for others. It is
all that a graph with 8-bit integers needs from data, so it can be used again without the data.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnxruntime.quantization.calibrate import CalibrationDataReader, MinMaxCalibrater

from ..errors import BundleError, ImageError
from ..runtime.bundle import DIRECTIONS, Bundle
from .trajectories import Call, Trajectories

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
        """Raises BundleError if this was measured on other graphs than the bundle's."""
        if self.graphs != bundle.hashes("fp32"):
            raise BundleError(f"this calibration ({self.source}) was measured on another model's graphs; calibrate {bundle.path} itself")


def read_calibration(path: Path) -> Calibration:
    """A calibration file. Raises ImageError if it is none."""
    try:
        return _from_json(json.loads(path.read_text()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ImageError(f"{path}: not a calibration file ({type(error).__name__}: {error})") from error


def measure_ranges(bundle: Bundle, trajectories: Trajectories) -> Calibration:
    """Play the recorded calls once more on the float32 graphs with all tensors watched (onnxruntime.quantization's MinMaxCalibrater).

    Raises ImageError if a direction was never played.
    """
    graphs = bundle.graphs("fp32")
    ranges = {direction: _minimum_maximum(graphs[direction], trajectories.calls[direction]) for direction in DIRECTIONS}
    samples = trajectories.samples
    return Calibration(bundle.hashes("fp32"), samples.digest, samples.source, len(samples.images), trajectories.schedules, ranges)


def _minimum_maximum(graph: Path, calls: list[Call]) -> dict[str, tuple[float, float]]:
    if not calls:
        raise ImageError(f"no schedule plays {graph.stem}; calibrate with one that generates and one that inverts")
    with tempfile.TemporaryDirectory() as folder:
        # the copy with a ReduceMin and a ReduceMax on every tensor takes its weights along
        calibrator = MinMaxCalibrater(graph, augmented_model_path=f"{folder}/watched.onnx", use_external_data_format=True)
        calibrator.augment_graph()
        calibrator.create_inference_session()
        calibrator.collect_data(_Reader(calls))
        found = calibrator.compute_data().data
    proto = onnx.load(graph, load_external_data=False)
    order = [value.name for value in proto.graph.input] + [name for node in proto.graph.node for name in node.output]
    return {name: _pair(found[name].range_value) for name in order if name in found}


class _Reader(CalibrationDataReader):
    """Calls in the form onnxruntime.quantization reads them."""

    def __init__(self, calls: list[Call]) -> None:
        self._calls: Iterator[Call] = iter(calls)

    def get_next(self) -> Call:
        return next(self._calls, {})  # nothing more to read


def _pair(values: Any) -> tuple[float, float]:
    low, high = (float(np.asarray(value).reshape(-1)[0]) for value in values)
    return low, high


def _from_json(values: Any) -> Calibration:
    if values["schema"] != SCHEMA:
        raise ValueError(f"schema {values['schema']}, this package reads {SCHEMA}")
    ranges = {d: {str(name): (float(low), float(high)) for name, (low, high) in values["ranges"][d].items()} for d in DIRECTIONS}
    if not all(np.isfinite(pair).all() and pair[0] <= pair[1] for tensors in ranges.values() for pair in tensors.values()):
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
