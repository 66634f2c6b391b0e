"""Make the 8-bit graphs of a bundle: measure ranges, choose the layers to quantise, write the graphs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import onnxruntime

from ..calibration.ranges import CALIBRATION, Calibration, measure_ranges
from ..calibration.trajectories import MINIMUM, Samples, generate_samples
from ..errors import ParityError
from ..runtime.backends import open_backend
from ..runtime.backends.onnxruntime import OnnxRuntimeBackend
from ..runtime.backends.sessions import open_serialised
from ..runtime.checks.parity import compare
from ..runtime.checks.recording import LARGE, Recording, record
from ..runtime.schedule import Schedule
from ..runtime.storage.bundle import Bundle, describe_files
from ..runtime.storage.manifest import Manifest
from .gpu_graphs import write_gpu_graphs
from .graphs import weights_name
from .int8 import choose_layers, layers, quantised, write_int8_graphs

# The share of the bound that the choice of layers may use. The rest is for seeds that the choice does not
# play.
SAFETY = 0.8

Report = Callable[[str], None]  # called with one line per stage


@dataclass(frozen=True)
class Quantisation:
    """The options for choosing the layers of the 8-bit graphs."""

    # Played to measure the error of a choice.
    schedules: list[Schedule]
    # The largest relative L2 error that a move may have.
    bound: float
    # How many seeds the schedules are played on.
    seeds: int
    # Quantise every layer if no choice meets the bound.
    inaccurate: bool = False


def seeds_for(parameters: int) -> int:
    """Return how many seeds layers are chosen on, for a network with this many parameters."""
    return 2 if parameters > LARGE else 8


def calibrate(
    bundle: Bundle, samples: Samples | None, schedules: list[Schedule], report: Report
) -> Calibration:
    """Measure the range of every activation of the float32 graphs while the schedules play.

    samples: the images to play them on. None: the model generates them.
    """
    if samples is None:
        backend = open_backend("auto", bundle, "fp32")
        samples = generate_samples(backend, MINIMUM)
        backend.close()
    report(f"calibrating: {len(schedules)} schedules on {len(samples.images)} images ({samples.source})")
    calibration = measure_ranges(bundle, schedules, samples, _every_tenth(report))
    tensors = sum(len(ranges) for ranges in calibration.ranges.values())
    report(f"ranges of {tensors} tensors")
    return calibration


def quantise(
    bundle: Bundle,
    precisions: Sequence[str],
    calibration: Calibration,
    quantisation: Quantisation,
    folder: Path,
    report: Report,
) -> tuple[Manifest, Calibration]:
    """Write the graphs of 8-bit precisions, their weights and calibration.json to a folder.

    Layers are chosen if the calibration does not name them. They are those whose error is within the bound in
    int8, and the same in all precisions.

    Returns the manifest with these graphs, and the calibration with the layers that stay as they are. Raises
    ParityError with the measured errors if no choice of layers meets the bound.
    """
    if calibration.kept is None:
        calibration = replace(calibration, kept=_choose(bundle, calibration, quantisation, report))
    kept = calibration.kept or []
    graphs = dict(bundle.manifest.graphs)
    for precision in precisions:
        if precision == "int8":
            graphs[precision] = write_int8_graphs(bundle, calibration, kept, folder)
        else:
            graphs[precision] = write_gpu_graphs(bundle, precision, calibration, kept, folder)
        names = (*graphs[precision].values(), weights_name(precision))
        megabytes = sum((folder / name).stat().st_size for name in names) / 1e6
        report(f"{precision}: {megabytes:.1f} MB; not quantised: {', '.join(kept) or 'no convolution'}")
    (folder / CALIBRATION).write_text(calibration.to_json())
    files = {**bundle.manifest.files, **describe_files(folder)}
    return replace(bundle.manifest, graphs=graphs, files=files), calibration


def _choose(
    bundle: Bundle, calibration: Calibration, quantisation: Quantisation, report: Report
) -> list[str]:
    """Return the layers that stay float32."""
    reference = open_backend("onnxruntime", bundle, "fp32")
    recording = record(reference, quantisation.schedules, quantisation.seeds)
    ranking_recording = recording
    if bundle.manifest.model.parameters > LARGE:
        # A large network has over a hundred layers to rank, so one sample has to do, played on the last
        # schedule alone: the reconstruction, which plays both directions.
        ranking_recording = record(reference, quantisation.schedules[-1:], 1)
    reference.close()

    def error_on(recording: Recording, float32_layers: Collection[str]) -> float:
        candidate = _Candidate(bundle, calibration, float32_layers)
        errors = compare(candidate, recording, (len(recording.seeds),), quantisation.bound)
        candidate.close()
        return max(error.relative_l2 for error in errors)

    names = layers(bundle)
    float32_layers, _ = choose_layers(
        names,
        error=lambda float32_layers: error_on(recording, float32_layers),
        error_alone=lambda float32_layers: error_on(ranking_recording, float32_layers),
        bound=SAFETY * quantisation.bound,
        report=report,
    )
    if len(float32_layers) < len(names):
        return float32_layers
    if quantisation.inaccurate:
        return []
    raise ParityError(
        f"no layer can be computed in 8 bits within the bound of {quantisation.bound:.1e} relative L2, "
        f"of which the choice of layers may use {SAFETY:.0%}; raise the bound, or quantise every layer with "
        "--allow-inaccurate",
        [],
    )


class _Candidate(OnnxRuntimeBackend):
    """A backend for int8 graphs in memory, which tries choices of layers."""

    def __init__(self, bundle: Bundle, calibration: Calibration, float32_layers: Collection[str]) -> None:
        model = bundle.manifest.model
        super().__init__(bundle.graphs("fp32"), False, model.sample_shape, model.num_classes, "int8")
        self._bundle = bundle
        self._calibration = calibration
        self._float32_layers = float32_layers

    def _open(self, graph: Path) -> onnxruntime.InferenceSession:
        direction = next(direction for direction, path in self._graphs.items() if path == graph)
        proto = quantised(self._bundle, self._calibration, self._float32_layers, direction)
        return open_serialised(proto.SerializeToString(), graph.parent)


def _every_tenth(report: Report) -> Callable[[int, int], None]:
    """Return a callback (calls done, calls in all) that reports nine times, after each tenth but the last."""

    def on_call(done: int, total: int) -> None:
        tenths_before = (done - 1) * 10 // total
        tenths_now = done * 10 // total
        if tenths_before < tenths_now and done < total:
            report(f"  {done} of {total} network calls")

    return on_call
