"""bcm-edge export: from a checkpoint to a bundle."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import OutputError, ParityError
from .calibration import calibration_options, read_samples
from .console import (
    config_option,
    force_option,
    json_option,
    known_fields,
    output_option,
    parity_table,
    parse_precisions,
    preset_option,
    progress,
    require_extra,
    result,
)
from .paths import PATH, check_utf8

if TYPE_CHECKING:
    from ..export.exporter import ExportPlan
    from ..runtime.pixels import ValueRange


@click.command(
    short_help="A checkpoint to a bundle.",
    epilog="Example:  bcm-edge export ema_0.99997_234000.pt --preset imagenet64 -o imagenet64.bundle",
)
@click.argument("checkpoint", required=False, type=PATH)
@output_option("The bundle to write (a folder).", "folder")
@preset_option
@config_option
@click.option(
    "--precision",
    "precisions",
    default="fp32",
    show_default=True,
    metavar="LIST",
    help="Graphs to write: of fp32,fp16,bf16,int8.",
)
@calibration_options
@click.option(
    "--opset", default=18, show_default=True, type=click.IntRange(18, 23), help="ONNX opset of the graphs."
)
@click.option(
    "--verify",
    default="auto",
    show_default=True,
    type=click.Choice(["auto", "full"]),
    help="full: every schedule at batch 1, 2 and 5.",
)
@click.option(
    "--no-verify",
    is_flag=True,
    help="Publish without comparing the graphs with torch (and without golden.npz).",
)
@click.option(
    "--dry-run", is_flag=True, help="Read and check the checkpoint, say what would be written, and stop."
)
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
    verify: str,
    no_verify: bool,
    dry_run: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Export CHECKPOINT to a bundle: a file, or digits (the default) or mnist, the models inside this package.

    Reads official ema_*.pt files, safetensors, also in shards through their index, and what training loops save. The graphs are
    compared with torch over whole schedules before anything is published; exit code 1, and no bundle, if they disagree by more than
    the bound of their precision: 1e-4 (fp32), 5e-3 (fp16), 2e-2 (bf16), 6e-2 (int8) relative L2 after every move. For int8 the
    ranges of activations are measured on --data, by default on images that the model makes itself.
    """
    require_extra("export")
    from ..calibration.ranges import read_calibration
    from ..export.exporter import ExportPlan
    from ..export.exporter import export as run_export
    from ..model.checkpoint import SHIPPED, load_checkpoint, shipped_checkpoint
    from ..runtime.engines.store import engine_folders
    from ..runtime.storage.files import check_free
    from ..runtime.storage.manifest import MANIFEST

    if checkpoint and os.path.realpath(output) == os.path.realpath(checkpoint):
        raise OutputError(
            f"{output} is the checkpoint itself, which the bundle would replace; choose another name"
        )
    check_utf8(output, checkpoint or "")
    check_free(output, force, marker=MANIFEST)
    if lost := [engine.name for engine in engine_folders(output)]:
        progress(
            f"note: --force replaces {output} with {len(lost)} engines in it, which will have to be built again: {', '.join(lost)}"
        )
    name = str(checkpoint or SHIPPED[0])
    source = shipped_checkpoint(name) if name in SHIPPED else Path(name)
    loaded = load_checkpoint(source, known_fields(preset, config_file))
    for note in loaded.notes:
        progress(f"note: {note}")
    config, wanted = loaded.config, parse_precisions(precisions)
    if (data or calibration or allow_inaccurate) and "int8" not in wanted:
        raise click.UsageError(
            "--data, --calibration and --allow-inaccurate are for int8, which --precision does not ask for"
        )
    if data and calibration:
        raise click.UsageError("give --data or --calibration, not both")
    plan = ExportPlan(
        loaded,
        output,
        opset,
        "none" if no_verify else verify,
        force,
        wanted,
        read_samples(data, size, loaded.facts, value_range) if data else None,
        read_calibration(calibration) if calibration else None,
        allow_inaccurate,
    )
    classes = f", {config.num_classes} classes" if config.num_classes else ""
    shape = f"{config.in_channels}×{config.image_size}×{config.image_size}{classes}"
    progress(
        f"checkpoint: {loaded.files[0]} ({plan.parameters / 1e6:.2f} M parameters, {shape}, {loaded.size / 1e6:.1f} MB)"
    )
    if dry_run:
        checks = (
            "nothing"
            if no_verify
            else f"{len(plan.programs)} schedules at batch {', '.join(map(str, plan.batches))}"
        )
        text = f"would write {output}: {', '.join(plan.files)} (weights in fp32: {4 * plan.parameters / 1e6:.1f} MB); would verify {checks}"
        result(as_json, {"dry_run": True, **_summary(plan)}, text)
        return
    try:
        errors = run_export(plan, loaded.sha256(), progress)
    except ParityError as error:
        if error.errors:
            progress(parity_table({"": error.errors}))
        raise
    if errors:
        progress(parity_table(errors))
    progress(_next_commands(output, config.num_classes))
    verification = {precision: [vars(e) for e in measured] for precision, measured in errors.items()}
    result(as_json, {**_summary(plan), "verification": verification}, str(output))


def _summary(plan: ExportPlan) -> dict[str, Any]:
    return {
        "bundle": str(plan.output),
        "checkpoint": plan.checkpoint.name,
        "parameters": plan.parameters,
        "config": plan.checkpoint.config.to_json(),
        "classes": plan.checkpoint.classes,
        "opset": plan.opset,
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
