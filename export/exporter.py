"""Export a checkpoint to a bundle: write the graphs, verify them against torch, publish the folder."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import onnxruntime
import torch

from .. import __version__
from ..calibration.ranges import CALIBRATION, Calibration
from ..calibration.trajectories import Samples
from ..errors import CheckpointError
from ..model.checkpoint import Checkpoint
from ..model.player import TorchBackend
from ..model.preconditioning import ConsistencyModel
from ..runtime.accuracy import BOUNDS
from ..runtime.checks.parity import MoveError
from ..runtime.checks.recording import Recording, batches_to_check, programs_to_check, record, save_recording
from ..runtime.schedule import DEFAULT_SCHEDULES, Schedule
from ..runtime.storage.bundle import Bundle, describe_files
from ..runtime.storage.files import replacing
from ..runtime.storage.manifest import CALIBRATED, GOLDEN, MANIFEST, ON_GPUS, Manifest
from ..runtime.storage.shipped import measured_quality
from .graphs import TYPES, graph_names, weights_name, write_graphs
from .quantise import Quantisation, calibrate, quantise, seeds_for
from .verification import verified

Report = Callable[[str], None]  # called with one line per finished stage


@dataclass(frozen=True)
class ExportPlan:
    """The plan of an export. Raises CheckpointError for a checkpoint that cannot be exported."""

    checkpoint: Checkpoint
    # The folder of the bundle.
    output: Path
    opset: int = 18
    # "full": play all schedules. "none": verify nothing. "auto": all schedules, but two for a large network.
    verify: str = "auto"
    # Replace a bundle that exists.
    force: bool = False
    # Any of runtime.storage.manifest.PRECISIONS.
    precisions: tuple[str, ...] = ("fp32",)
    # For 8-bit precisions: the images to calibrate on. None: the model generates them.
    samples: Samples | None = None
    # For 8-bit precisions: an earlier calibration, used in place of samples.
    calibration: Calibration | None = None
    # Publish 8-bit graphs whose error exceeds the bound.
    allow_inaccurate: bool = False
    # The bundle has a copy of the checkpoint, a safetensors file, from which the graphs load the weights.
    # Otherwise it has a weights file for each precision.
    copy_checkpoint: bool = False
    # The type of normalisations in fp16 graphs, and in the 8-bit graphs made from them: "float32" or "half".
    fp16_norms: Literal["float32", "half"] = "float32"

    def __post_init__(self) -> None:
        self.checkpoint.require("bcm")
        if self.checkpoint.untrained_inversion:
            raise CheckpointError(
                f"{self.checkpoint.name} is a consistency model, such as iCT, which was trained to move to "
                "the image only, so it cannot invert. "
                "Fine-tune it first: bcm-edge train --init CHECKPOINT --data …"
            )

    @property
    def parameters(self) -> int:
        """The number of parameters of the network."""
        return sum(tensor.numel() for tensor in self.checkpoint.state_dict.values())

    @property
    def schedules(self) -> dict[str, str]:
        """The bundle's schedules, name → text: the checkpoint's own, and the authors' for all other names."""
        return {**DEFAULT_SCHEDULES, **self.checkpoint.schedules}

    @property
    def copied(self) -> str | None:
        """The name of the checkpoint in the bundle. None if the bundle has weights files."""
        return self.checkpoint.files[0].name if self.copy_checkpoint else None

    @property
    def programs(self) -> list[Schedule]:
        """The schedules that verification and calibration play, among them a reconstruction."""
        return programs_to_check(self.schedules, self._size_to_check)

    @property
    def batches(self) -> tuple[int, ...]:
        """The batch sizes that verification plays."""
        return batches_to_check(self._size_to_check)

    @property
    def files(self) -> list[str]:
        """The names of the files that will be written, without the manifest and the recording."""
        names = []
        for precision in self.precisions:
            names += [*graph_names(precision).values(), self.copied or weights_name(precision)]
        return [*names, CALIBRATION] if self.calibrated else names

    @property
    def calibrated(self) -> list[str]:
        """The 8-bit precisions."""
        return [precision for precision in self.precisions if precision in CALIBRATED]

    @property
    def typed(self) -> list[str]:
        """The precisions whose graphs are written from the model, with those that 8-bit graphs need."""
        needed = set(self.precisions)
        if self.calibrated:
            needed.add("fp32")
        if needed & set(ON_GPUS):
            needed.add("fp16")
        return [precision for precision in TYPES if precision in needed]

    @property
    def _size_to_check(self) -> int:
        """The number of parameters that decides how much is verified; 0 verifies everything."""
        return 0 if self.verify == "full" else self.parameters


def export(
    plan: ExportPlan, checkpoint_sha256: str, report: Report = lambda line: None
) -> dict[str, list[MoveError]]:
    """Write the bundle and return precision → the errors that verification measured.

    A precision that no backend of this machine supports is not in the result.

    Raises ParityError, and writes nothing, if graphs exceed the error bound of their precision.
    """
    model = plan.checkpoint.model()
    with replacing(plan.output, plan.force, marker=MANIFEST) as folder:
        folder.mkdir()
        if plan.copied:
            shutil.copyfile(plan.checkpoint.files[0], folder / plan.copied)
        bundle = _write_float_graphs(plan, model, folder, checkpoint_sha256, report)
        recording = None
        if plan.verify != "none":
            recording = record(TorchBackend(model), plan.programs, max(plan.batches))
            save_recording(recording, folder / GOLDEN)
        del model  # frees the memory of the weights
        if plan.calibrated:
            bundle = _add_calibrated(plan, bundle, report)
        errors = {}
        if recording:
            bundle, errors = _verify(plan, bundle, recording, report)
        for precision in set(plan.typed) - set(plan.precisions):  # 8-bit graphs needed them
            _remove_graphs(precision, folder)
        graphs = {precision: bundle.manifest.graphs[precision] for precision in plan.precisions}
        manifest = replace(bundle.manifest, graphs=graphs, files=describe_files(folder))
        (folder / MANIFEST).write_text(manifest.to_json())
        megabytes = _megabytes(folder.iterdir())
    versions = f"torch {torch.__version__}, onnx {onnx.__version__}, onnxruntime {onnxruntime.__version__}"
    report(f"bundle: {plan.output} ({megabytes:.1f} MB, {', '.join(plan.precisions)}; {versions})")
    return {precision: measured for precision, measured in errors.items() if measured}


def _write_float_graphs(
    plan: ExportPlan, model: ConsistencyModel, folder: Path, checkpoint_sha256: str, report: Report
) -> Bundle:
    """Write the graphs of all floating-point precisions as a bundle."""
    graphs = {}
    for precision in plan.typed:
        started = time.perf_counter()
        graphs[precision] = write_graphs(model, folder, precision, plan.opset, plan.copied, plan.fp16_norms)
        names = [*graphs[precision].values(), plan.copied or weights_name(precision)]
        megabytes = _megabytes(folder / name for name in names)
        seconds = time.perf_counter() - started
        report(
            f"{precision}: forward and inverse, {megabytes:.1f} MB, written and checked in {seconds:.1f} s"
        )
    manifest = Manifest(
        plan.checkpoint.facts,
        graphs,
        plan.schedules,
        describe_files(folder),
        _provenance(plan, checkpoint_sha256),
        measured_quality(checkpoint_sha256),
    )
    return Bundle(folder, manifest)


def _provenance(plan: ExportPlan, checkpoint_sha256: str) -> dict[str, Any]:
    """The manifest's entry about the checkpoint and the software that wrote the graphs."""
    checkpoint = {"name": plan.checkpoint.name, "sha256": checkpoint_sha256, **plan.checkpoint.provenance}
    libraries = {library.__name__: library.__version__ for library in (torch, onnx, onnxruntime, np)}
    versions = {"bcm-edge": __version__, **libraries}
    norms = {"fp16_norms": plan.fp16_norms} if "fp16" in plan.typed else {}
    return {"checkpoint": checkpoint, "opset": plan.opset, **norms, "versions": versions}


def _add_calibrated(plan: ExportPlan, bundle: Bundle, report: Report) -> Bundle:
    """Write the 8-bit graphs; return the bundle with them."""
    calibration = plan.calibration or calibrate(bundle, plan.samples, plan.programs, report)
    quantisation = Quantisation(
        plan.programs, BOUNDS["int8"], seeds_for(plan.parameters), plan.allow_inaccurate
    )
    manifest, _ = quantise(bundle, plan.calibrated, calibration, quantisation, bundle.path, report)
    return Bundle(bundle.path, manifest)


def _verify(
    plan: ExportPlan, bundle: Bundle, recording: Recording, report: Report
) -> tuple[Bundle, dict[str, list[MoveError]]]:
    """Verify every precision; return the bundle with the verdicts, and precision → errors."""
    errors = {}
    for precision in plan.precisions:
        allowed = precision in CALIBRATED and plan.allow_inaccurate
        manifest, errors[precision] = verified(
            bundle, precision, recording, plan.batches, BOUNDS[precision], allowed, report
        )
        bundle = Bundle(bundle.path, manifest)
    return bundle, errors


def _remove_graphs(precision: str, folder: Path) -> None:
    for name in (*graph_names(precision).values(), weights_name(precision)):
        (folder / name).unlink(missing_ok=True)


def _megabytes(files: Iterable[Path]) -> float:
    return sum(file.stat().st_size for file in files) / 1e6
