"""bcm-edge export: from a checkpoint to a bundle."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from ..errors import CheckpointError, OutputError
from ..runtime.checks.doctor import require_extra
from ..runtime.storage.manifest import CALIBRATED
from .calibration import calibration_options, read_samples
from .console import (
    detail,
    message,
    note,
    parity_line,
    parity_table,
    parity_table_of_failure,
    progress,
    result,
    stages,
)
from .options import (
    config_option,
    force_option,
    json_option,
    known_fields,
    output_option,
    parse_precisions,
    precisions_option,
    preset_option,
)
from .paths import PATH, check_utf8

if TYPE_CHECKING:
    from ..export.exporter import ExportPlan
    from ..model.checkpoint import Checkpoint
    from ..runtime.checks.parity import MoveError
    from ..runtime.pixels import ValueRange


@click.command(
    short_help="Export a checkpoint to a bundle.",
    epilog="Example:  bcm-edge export ema.pt --preset imagenet64 -o imagenet64.bundle",
)
@click.argument("checkpoint", required=False, type=PATH)
@output_option("The bundle to write (a folder).", "folder")
@preset_option
@config_option
@precisions_option(
    "fp32",
    "Precisions of the graphs to write: a list of fp32,fp16,bf16,int8, or all; and for GPUs int8-fp16,fp8.",
)
@calibration_options
@click.option(
    "--opset",
    metavar="N",
    default=18,
    show_default=True,
    type=click.IntRange(18, 23),
    help="ONNX opset of the graphs.",
)
@click.option(
    "--fp16-norms",
    default="float32",
    show_default=True,
    type=click.Choice(["float32", "half"]),
    help="Type of normalisations in fp16, int8-fp16 and fp8 graphs. half needs no casts around them; its "
    "error is larger.",
)
@click.option(
    "--verify",
    default="auto",
    show_default=True,
    type=click.Choice(["auto", "full"]),
    help="How much to compare with torch: full, every schedule at batch 1, 2 and 5; auto, fewer for large "
    "models.",
)
@click.option(
    "--no-verify",
    is_flag=True,
    help="Write the bundle without comparing it with torch, and without golden.npz.",
)
@click.option("--dry-run", is_flag=True, help="Check the checkpoint, print what would be written, and stop.")
@force_option
@json_option
def export(
    checkpoint: Path | None,
    output: Path,
    preset: str | None,
    config_file: Path | None,
    precisions: str,
    data: str | None,
    size: int,
    value_range: ValueRange,
    calibration: Path | None,
    allow_inaccurate: bool,
    opset: int,
    fp16_norms: Literal["float32", "half"],
    verify: str,
    no_verify: bool,
    dry_run: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Export CHECKPOINT to a bundle, and verify it.

    CHECKPOINT is a file, or the name of a model in this package: digits (the default), mnist or emoji.
    Supported files are official ema_*.pt files, safetensors (also in shards, through their index), and the
    checkpoints of common training loops.

    Before the bundle is written, its graphs are compared with torch over whole schedules. If a move differs
    by more than the bound of its precision, nothing is written and the exit code is 1. The bounds are
    relative L2 errors: 1e-4 (fp32), 5e-3 (fp16), 2e-2 (bf16), 6e-2 (int8, int8-fp16, fp8). For the last
    three, the ranges of activations are measured on --data.
    """
    require_extra("export")
    from ..calibration.ranges import read_calibration
    from ..export.exporter import ExportPlan

    _check_output(output, checkpoint, force)
    loaded = _load(checkpoint, known_fields(preset, config_file))
    chosen = parse_precisions(precisions)
    _check_calibration_options(chosen, data, calibration, allow_inaccurate)
    plan = ExportPlan(
        loaded,
        output,
        opset,
        "none" if no_verify else verify,
        force,
        chosen,
        read_samples(data, size, loaded.facts, value_range) if data else None,
        read_calibration(calibration) if calibration else None,
        allow_inaccurate,
        fp16_norms=fp16_norms,
    )
    if fp16_norms != "float32" and "fp16" not in plan.typed:
        raise click.UsageError(
            "--fp16-norms half is for fp16, int8-fp16 and fp8 graphs; add one of these to --precision, or "
            "leave it out"
        )
    progress(_checkpoint_line(loaded, plan))
    if dry_run:
        result(as_json, {"dry_run": True, **_summary(plan)}, _dry_run_text(plan))
        return
    _export(plan, as_json)


def _load(checkpoint: Path | None, fields: dict[str, Any]) -> Checkpoint:
    """Load a file or a model of this package, and print its notes. Raises CheckpointError.

    fields: fields of its configuration.
    """
    from ..model.checkpoint import load_checkpoint, shipped_checkpoint
    from ..runtime.storage.shipped import SHIPPED

    name = str(checkpoint or "digits")
    source = shipped_checkpoint(name) if name in SHIPPED else Path(name)
    if not os.path.lexists(source) and not source.suffix and source.name == name:
        raise CheckpointError(
            f"{name}: no such file; give a checkpoint, or a shipped model: {', '.join(SHIPPED)}"
        )
    loaded = load_checkpoint(source, fields)
    for line in loaded.notes:
        note(line)
    return loaded


def _check_calibration_options(
    precisions: Sequence[str], data: str | None, calibration: Path | None, allow_inaccurate: bool
) -> None:
    """Raise click.UsageError for options of 8-bit precisions without any, or that cannot be combined."""
    if (data or calibration or allow_inaccurate) and not set(precisions) & set(CALIBRATED):
        raise click.UsageError(
            "--data, --calibration and --allow-inaccurate are options for int8, int8-fp16 and fp8; add one "
            "of these to --precision, or leave them out"
        )
    if data and calibration:
        raise click.UsageError("--data and --calibration cannot be combined; give one of them")


def _check_output(output: Path, checkpoint: Path | None, force: bool) -> None:
    """Raise OutputError if the bundle cannot be written; print which engines it will replace."""
    from ..runtime.engines.store import engine_folders
    from ..runtime.storage.files import check_free
    from ..runtime.storage.manifest import MANIFEST
    from ..runtime.storage.packed import is_packed

    if is_packed(output):
        folder = output.with_suffix(".bundle")
        raise OutputError(
            f"{output}: export writes a folder; use -o {folder}, and then bcm-edge pack {folder} -o {output}"
        )
    if checkpoint and os.path.realpath(output) == os.path.realpath(checkpoint):
        raise OutputError(
            f"{output} is the checkpoint, which the bundle would replace; choose another output"
        )
    check_utf8(output, checkpoint or "")
    check_free(output, force, marker=MANIFEST)
    if replaced := [engine.name for engine in engine_folders(output)]:
        note(
            f"--force replaces {output} with {len(replaced)} engines in it, which must be built again: "
            f"{', '.join(replaced)}"
        )


def _export(plan: ExportPlan, as_json: bool) -> None:
    """Write the bundle and print the result. Raises ParityError."""
    from ..export.exporter import export
    from ..export.verification import NOT_VERIFIED

    with parity_table_of_failure(), stages() as show:

        def report(line: str) -> None:
            (message if NOT_VERIFIED in line else show)(line)

        errors = export(plan, plan.checkpoint.sha256(), report)
    if errors:
        detail(parity_table(errors))
    for line in _precision_lines(plan, errors):
        progress(line)
    progress(_next_commands(plan.output, plan.checkpoint.config.num_classes))
    verification = {precision: [vars(error) for error in moves] for precision, moves in errors.items()}
    result(as_json, {**_summary(plan), "verification": verification}, str(plan.output))


def _precision_lines(plan: ExportPlan, errors: Mapping[str, Sequence[MoveError]]) -> Iterator[str]:
    """Yield a line per precision: the largest error of each direction, the verdict and the size."""
    from ..runtime.storage.bundle import Bundle, read_manifest

    manifest = read_manifest(plan.output)
    bundle = Bundle(plan.output, manifest)
    for precision in plan.precisions:
        size = sum(manifest.files[name].size for name in bundle.hashes(precision)) / 1e6
        measured = errors.get(precision)
        verdict = parity_line(measured) if measured else "not verified"
        yield f"{precision}: {verdict}, {size:.1f} MB"


def _checkpoint_line(checkpoint: Checkpoint, plan: ExportPlan) -> str:
    config = checkpoint.config
    shape = f"{config.in_channels}×{config.image_size}×{config.image_size}"
    classes = f", {config.num_classes} classes" if config.num_classes else ""
    parameters = f"{plan.parameters / 1e6:.2f} M parameters"
    size = f"{checkpoint.size / 1e6:.1f} MB"
    return f"checkpoint: {checkpoint.files[0]} ({parameters}, {shape}{classes}, {size})"


def _dry_run_text(plan: ExportPlan) -> str:
    files = f"{', '.join(plan.files)} (weights in fp32: {4 * plan.parameters / 1e6:.1f} MB)"
    batches = ", ".join(map(str, plan.batches))
    checks = "nothing" if plan.verify == "none" else f"{len(plan.programs)} schedules at batch {batches}"
    return f"would write {plan.output}: {files}; would verify {checks}"


def _summary(plan: ExportPlan) -> dict[str, Any]:
    return {
        "bundle": str(plan.output),
        "checkpoint": plan.checkpoint.name,
        "parameters": plan.parameters,
        "config": plan.checkpoint.config.to_json(),
        "classes": plan.checkpoint.classes,
        "opset": plan.opset,
        "fp16_norms": plan.fp16_norms,
        "schedules": plan.schedules,
        "precisions": list(plan.precisions),
        "to_verify": [] if plan.verify == "none" else [str(program) for program in plan.programs],
    }


def _next_commands(output: Path, num_classes: int | None) -> str:
    label = " --label all" if num_classes else ""
    return (
        f"next:\n  bcm-edge generate {output} -n 16 --schedule mixture-4{label} -o images.png\n"
        f"  bcm-edge inspect {output}\n  bcm-edge verify {output}"
    )
