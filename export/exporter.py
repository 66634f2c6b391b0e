"""checkpoint → bundle: write the graphs, verify them against torch, publish the folder whole or not at all."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

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
from ..runtime.checks.parity import MoveError, batches_to_check, programs_to_check, record, save_recording
from ..runtime.schedule import DEFAULT_SCHEDULES, Schedule
from ..runtime.storage.bundle import Bundle, describe_files
from ..runtime.storage.files import replacing
from ..runtime.storage.manifest import GOLDEN, MANIFEST, Manifest
from .graphs import TYPES, graph_names, weights_name, write_graphs
from .quantise import FILES, Quantisation, calibrate, quantise, seeds_for
from .verification import verified

Report = Callable[[str], None]  # gets one line per finished stage


@dataclass(frozen=True)
class ExportPlan:
    """What an export will do.

    precisions: of "fp32", "fp16", "bf16", "int8". verify: "auto" (all schedules; two of them for a large network), "full" or "none".
    For int8: samples to calibrate on (None: images by the model itself), or a calibration made before; allow_inaccurate publishes
    int8 graphs that stray beyond the bound.
    """

    checkpoint: Checkpoint
    output: Path
    opset: int = 18
    verify: str = "auto"
    force: bool = False
    precisions: tuple[str, ...] = ("fp32",)
    samples: Samples | None = None
    calibration: Calibration | None = None
    allow_inaccurate: bool = False

    def __post_init__(self) -> None:
        self.checkpoint.require("bcm")
        if self.checkpoint.untrained_inversion:
            raise CheckpointError(
                f"{self.checkpoint.name} is an iCT checkpoint: it has never been trained to move to any level but the image, so it "
                "cannot invert. Fine-tune it first: bcm-edge train --init CHECKPOINT --data …"
            )

    @property
    def parameters(self) -> int:
        return sum(tensor.numel() for tensor in self.checkpoint.state_dict.values())

    @property
    def schedules(self) -> dict[str, str]:
        """The bundle's named schedules: the checkpoint's own, on top of the authors' released levels."""
        return {**DEFAULT_SCHEDULES, **self.checkpoint.schedules}

    @property
    def programs(self) -> list[Schedule]:
        """The schedules that are verified, and calibrated on: all and a reconstruction, or for a large network two for all."""
        return programs_to_check(self.schedules, 0 if self.verify == "full" else self.parameters)

    @property
    def batches(self) -> tuple[int, ...]:
        return batches_to_check(0 if self.verify == "full" else self.parameters)

    @property
    def files(self) -> list[str]:
        """What will be written, but for the manifest and the recording."""
        names = [name for p in self.precisions for name in (*graph_names(p).values(), weights_name(p))]
        return [*names, CALIBRATION] if "int8" in self.precisions else names


def export(
    plan: ExportPlan, checkpoint_sha256: str, report: Report = lambda line: None
) -> dict[str, list[MoveError]]:
    """Write the bundle; returns precision → what verification measured (without those that nothing here can compute).

    Raises ParityError, and publishes nothing, if graphs stray further than the bound of their precision.
    """
    model = plan.checkpoint.model()
    with replacing(plan.output, plan.force, marker=MANIFEST) as folder:
        folder.mkdir()
        bundle = _write_float_graphs(plan, model, folder, checkpoint_sha256, report)
        recording = None
        if plan.verify != "none":
            recording = record(TorchBackend(model), plan.programs, max(plan.batches))
            save_recording(recording, folder / GOLDEN)
        del model
        if "int8" in plan.precisions:
            bundle = _add_int8(plan, bundle, report)
        manifest, errors = bundle.manifest, {}
        if recording:
            for precision in plan.precisions:
                bundle = Bundle(folder, manifest)
                allowed = precision == "int8" and plan.allow_inaccurate
                manifest, errors[precision] = verified(
                    bundle, precision, recording, plan.batches, BOUNDS[precision], allowed, report
                )
        if "fp32" not in plan.precisions:  # it was there to calibrate on
            for name in (*graph_names("fp32").values(), weights_name("fp32")):
                (folder / name).unlink(missing_ok=True)
        graphs = {precision: manifest.graphs[precision] for precision in plan.precisions}
        manifest = replace(manifest, graphs=graphs, files=describe_files(folder))
        (folder / MANIFEST).write_text(manifest.to_json())
        size = sum(file.stat().st_size for file in folder.iterdir()) / 1e6
    versions = f"torch {torch.__version__}, onnx {onnx.__version__}, onnxruntime {onnxruntime.__version__}"
    report(f"bundle: {plan.output} ({size:.1f} MB, {', '.join(plan.precisions)}; {versions})")
    return {precision: measured for precision, measured in errors.items() if measured}


def _write_float_graphs(
    plan: ExportPlan, model: ConsistencyModel, folder: Path, checkpoint_sha256: str, report: Report
) -> Bundle:
    wanted = [p for p in TYPES if p in plan.precisions or (p == "fp32" and "int8" in plan.precisions)]
    graphs = {}
    for precision in wanted:
        started = time.perf_counter()
        graphs[precision] = write_graphs(model, folder, precision, plan.opset)
        size = (
            sum(
                (folder / name).stat().st_size
                for name in (*graphs[precision].values(), weights_name(precision))
            )
            / 1e6
        )
        report(
            f"{precision}: forward and inverse, {size:.1f} MB, written and checked in {time.perf_counter() - started:.1f} s"
        )
    provenance = {
        "checkpoint": {
            "name": plan.checkpoint.name,
            "sha256": checkpoint_sha256,
            **plan.checkpoint.provenance,
        },
        "opset": plan.opset,
        "versions": {
            "bcm-edge": __version__,
            **{library.__name__: library.__version__ for library in (torch, onnx, onnxruntime, np)},
        },
    }
    return Bundle(
        folder, Manifest(plan.checkpoint.facts, graphs, plan.schedules, describe_files(folder), provenance)
    )


def _add_int8(plan: ExportPlan, bundle: Bundle, report: Report) -> Bundle:
    calibration = plan.calibration or calibrate(bundle, plan.samples, plan.programs, report)
    how = Quantisation(plan.programs, BOUNDS["int8"], seeds_for(plan.parameters), plan.allow_inaccurate)
    calibration = quantise(bundle, calibration, how, bundle.path, report)
    size = sum((bundle.path / name).stat().st_size for name in FILES) / 1e6
    report(f"int8: {size:.1f} MB; in float32: {', '.join(calibration.kept or []) or 'no convolution'}")
    graphs = {**bundle.manifest.graphs, "int8": graph_names("int8")}
    return Bundle(bundle.path, replace(bundle.manifest, graphs=graphs, files=describe_files(bundle.path)))
