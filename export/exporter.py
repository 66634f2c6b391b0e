"""checkpoint → bundle: write the graphs, verify them against torch, publish the folder whole or not at all."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch

from .. import __version__
from ..errors import CheckpointError, ParityError
from ..model.checkpoint import Checkpoint
from ..model.player import TorchBackend
from ..model.preconditioning import ConsistencyModel
from ..runtime.backends.onnxruntime import OnnxRuntimeBackend
from ..runtime.bundle import GOLDEN, MANIFEST, Manifest, ModelFacts, describe_files
from ..runtime.files import replacing
from ..runtime.parity import MoveError, compare, record, save_recording
from ..runtime.schedule import DEFAULT_SCHEDULES, parse_schedule
from .graphs import write_graphs

PRECISION = "fp32"
BOUND = 1e-4  # relative L2 per move that float32 graphs keep to
LARGE = 50_000_000  # parameters: beyond, a full verification takes minutes, so the two longest schedules stand for all
LARGE_SCHEDULES = ("mixture-4", "invert-2")
BATCHES, LARGE_BATCHES = (1, 2, 5), (2,)

Report = Callable[[str], None]  # gets one line per finished stage


@dataclass(frozen=True)
class ExportPlan:
    """What an export will do. verify: "auto" (all schedules; two of them for a large network), "full" or "none"."""

    checkpoint: Checkpoint
    output: Path
    opset: int = 18
    verify: str = "auto"
    force: bool = False

    def __post_init__(self) -> None:
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
    def to_verify(self) -> tuple[list[str], tuple[int, ...]]:
        """(names of the schedules that will be verified, batch sizes)."""
        if self.verify == "none":
            return [], ()
        if self.parameters > LARGE and self.verify == "auto":
            return list(LARGE_SCHEDULES), LARGE_BATCHES
        return list(self.schedules), BATCHES


def export(plan: ExportPlan, checkpoint_sha256: str, report: Report = lambda line: None) -> list[MoveError]:
    """Write the bundle; returns what verification measured. Raises ParityError, and publishes nothing, if the graphs stray."""
    model = plan.checkpoint.model()
    with replacing(plan.output, plan.force, marker=MANIFEST) as folder:
        folder.mkdir()
        started = time.perf_counter()
        graphs = write_graphs(model, folder, plan.opset)
        size = sum(file.stat().st_size for file in folder.iterdir()) / 1e6
        report(f"graphs: forward and inverse, opset {plan.opset}, {size:.1f} MB, checked in {time.perf_counter() - started:.1f} s")
        started = time.perf_counter()
        errors = _verify(plan, model, folder, graphs)
        if errors:
            report(f"verified {len(errors)} moves against torch in {time.perf_counter() - started:.1f} s")
        _write_manifest(plan, folder, graphs, checkpoint_sha256, errors)
        size = sum(file.stat().st_size for file in folder.iterdir()) / 1e6
    versions = f"torch {torch.__version__}, onnx {onnx.__version__}, onnxruntime {onnxruntime.__version__}"
    report(f"bundle: {plan.output} ({size:.1f} MB, {PRECISION}; {versions})")
    return errors


def _verify(plan: ExportPlan, model: ConsistencyModel, folder: Path, graphs: dict[str, str]) -> list[MoveError]:
    names, batches = plan.to_verify
    if not names:
        return []
    recording = record(TorchBackend(model), [parse_schedule(plan.schedules[name]) for name in names], max(batches))
    paths = {direction: folder / name for direction, name in graphs.items()}
    candidate = OnnxRuntimeBackend(paths, False, model.config.sample_shape, model.config.num_classes)
    errors = compare(candidate, recording, batches, BOUND)
    candidate.close()
    if bad := [e for e in errors if not e.ok]:
        worst = max(bad, key=lambda e: e.relative_l2)
        raise ParityError(
            f"ONNX Runtime and torch disagree in {len(bad)} of {len(errors)} moves; worst is {worst.move} of {worst.schedule!r} at batch "
            f"{worst.batch}: relative L2 {worst.relative_l2:.1e}, bound {BOUND:.0e}. No bundle was written.",
            errors,
        )
    save_recording(recording, folder / GOLDEN)
    return errors


def _write_manifest(plan: ExportPlan, folder: Path, graphs: dict[str, str], checkpoint_sha256: str, errors: list[MoveError]) -> None:
    config = plan.checkpoint.config
    parity = (
        {"bound": BOUND, "worst_relative_l2": max(e.relative_l2 for e in errors), "batches": list(plan.to_verify[1])} if errors else None
    )
    provenance = {
        "checkpoint": {"name": plan.checkpoint.name, "sha256": checkpoint_sha256, **plan.checkpoint.provenance},
        "opset": plan.opset,
        "parity": parity,
        "versions": {"bcm-edge": __version__, **{library.__name__: library.__version__ for library in (torch, onnx, onnxruntime, np)}},
    }
    facts = ModelFacts(Path(plan.checkpoint.name).stem, config.sample_shape, config.num_classes, plan.parameters, config.to_json())
    manifest = Manifest(facts, {PRECISION: graphs}, plan.schedules, describe_files(folder), provenance)
    (folder / MANIFEST).write_text(manifest.to_json())
