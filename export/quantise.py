"""A bundle's 8-bit graphs, from data to verdict: ranges over trajectories, layers by measured sensitivity, the pair of graphs."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path

import onnxruntime

from ..calibration.ranges import CALIBRATION, Calibration, measure_ranges
from ..calibration.trajectories import MINIMUM, Samples, generate_samples
from ..errors import ParityError
from ..runtime.backends import open_backend
from ..runtime.backends.onnxruntime import OnnxRuntimeBackend
from ..runtime.backends.sessions import open_serialised
from ..runtime.checks.parity import LARGE, Recording, compare, record
from ..runtime.schedule import Schedule
from ..runtime.storage.bundle import Bundle
from .graphs import graph_names, weights_name
from .int8 import choose_layers, layers, quantised, write_int8_graphs

SAFETY = 0.8  # share of the bound that the choice of layers may use up; other seeds than those it looks at need some too
FILES = (*graph_names("int8").values(), weights_name("int8"), CALIBRATION)

Report = Callable[[str], None]


@dataclass(frozen=True)
class Quantisation:
    """How to make the 8-bit graphs. schedules: what is played to choose layers, on so many seeds; bound: relative L2 after every move;
    inaccurate: take every layer where no choice meets the bound."""

    schedules: list[Schedule]
    bound: float
    seeds: int
    inaccurate: bool = False


def seeds_for(parameters: int) -> int:
    """How many samples layers are chosen on."""
    return 2 if parameters > LARGE else 8


def calibrate(
    bundle: Bundle, samples: Samples | None, schedules: list[Schedule], report: Report
) -> Calibration:
    """Ranges of every activation of the float32 graphs while the schedules play on samples, by default on images of the model's own."""
    if samples is None:
        backend = open_backend("auto", bundle, "fp32")
        samples = generate_samples(backend, MINIMUM)
        backend.close()
    report(f"calibrating: {len(schedules)} schedules on {len(samples.images)} images ({samples.source})")
    calibration = measure_ranges(bundle, schedules, samples, _tenths(report))
    report(f"ranges of {sum(map(len, calibration.ranges.values()))} tensors")
    return calibration


def quantise(
    bundle: Bundle, calibration: Calibration, how: Quantisation, folder: Path, report: Report
) -> Calibration:
    """Write the int8 pair, its weights and calibration.json to a folder; returns the calibration with the layers it keeps in float32.

    Layers are chosen where the calibration does not name them. Raises ParityError with the numbers if no choice meets the bound.
    """
    if calibration.kept is None:
        calibration = replace(calibration, kept=_choose(bundle, calibration, how, report))
    write_int8_graphs(bundle, calibration, calibration.kept or [], folder)
    (folder / CALIBRATION).write_text(calibration.to_json())
    return calibration


def _choose(bundle: Bundle, calibration: Calibration, how: Quantisation, report: Report) -> list[str]:
    reference = open_backend("onnxruntime", bundle, "fp32")
    recording = record(reference, how.schedules, how.seeds)
    # a large network has over a hundred layers to rank: one sample, and the reconstruction, which plays both directions
    ranking = (
        record(reference, how.schedules[-1:], 1) if bundle.manifest.model.parameters > LARGE else recording
    )
    reference.close()
    names = layers(bundle)

    def error(kept: Collection[str], recording: Recording = recording) -> float:
        candidate = _Candidate(bundle, calibration, kept)
        errors = compare(candidate, recording, (len(recording.seeds),), how.bound)
        candidate.close()
        return max(e.relative_l2 for e in errors)

    kept, _ = choose_layers(names, error, lambda kept: error(kept, ranking), SAFETY * how.bound, report)
    if len(kept) == len(names):
        if how.inaccurate:
            return []
        raise ParityError(
            f"no layer can be computed in 8 bits within a bound of {how.bound:.1e} relative L2 (of which {SAFETY:.0%} may be used); "
            "raise the bound, or take every layer with --allow-inaccurate",
            [],
        )
    return kept


class _Candidate(OnnxRuntimeBackend):
    """int8 graphs with some layers kept, made in memory: nothing is written while layers are tried."""

    def __init__(self, bundle: Bundle, calibration: Calibration, kept: Collection[str]) -> None:
        model = bundle.manifest.model
        super().__init__(bundle.graphs("fp32"), False, model.sample_shape, model.num_classes, "int8")
        self._bundle, self._calibration, self._kept = bundle, calibration, kept

    def _open(self, graph: Path) -> onnxruntime.InferenceSession:
        direction = next(direction for direction, path in self._graphs.items() if path == graph)
        proto = quantised(self._bundle, self._calibration, self._kept, direction)
        return open_serialised(proto.SerializeToString(), graph.parent)


def _tenths(report: Report) -> Callable[[int, int], None]:
    """Nine lines on the way."""

    def on_call(done: int, total: int) -> None:
        if done * 10 // total > (done - 1) * 10 // total and done < total:
            report(f"  {done} of {total} network calls")

    return on_call
