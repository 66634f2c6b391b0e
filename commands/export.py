"""bcm-edge export: from a checkpoint to a bundle."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import ParityError
from .console import (
    config_option,
    force_option,
    json_option,
    known_fields,
    output_option,
    preset_option,
    progress,
    require_extra,
    result,
    table,
)

if TYPE_CHECKING:
    from ..export.exporter import ExportPlan
    from ..runtime.parity import MoveError


@click.command(
    short_help="A checkpoint to a bundle.",
    epilog="Example:  bcm-edge export ema_0.99997_234000.pt --preset imagenet64 -o imagenet64.bundle",
)
@click.argument("checkpoint", required=False, type=click.Path(path_type=Path))
@output_option("The bundle to write (a folder).")
@preset_option
@config_option
@click.option("--opset", default=18, show_default=True, type=click.IntRange(18, 23), help="ONNX opset of the graphs.")
@click.option(
    "--verify", default="auto", show_default=True, type=click.Choice(["auto", "full"]), help="full: every schedule at batch 1, 2 and 5."
)
@click.option("--no-verify", is_flag=True, help="Publish without comparing the graphs with torch (and without golden.npz).")
@click.option("--dry-run", is_flag=True, help="Read and check the checkpoint, say what would be written, and stop.")
@force_option
@json_option
def export(
    checkpoint: Path | None,
    output: Path,
    preset: str | None,
    config_file: Path | None,
    opset: int,
    verify: str,
    no_verify: bool,
    dry_run: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Export CHECKPOINT (default: the digits model inside this package) to a bundle.

    Reads official ema_*.pt files and safetensors. The graphs are compared with torch over whole schedules before anything is
    published; exit code 1, and no bundle, if they disagree.
    """
    require_extra("export")
    from ..export.exporter import ExportPlan
    from ..export.exporter import export as run_export
    from ..model.checkpoint import load_checkpoint, shipped_checkpoint
    from ..runtime.bundle import MANIFEST
    from ..runtime.cache import sha256
    from ..runtime.files import check_free

    check_free(output, force, marker=MANIFEST)
    source = checkpoint or shipped_checkpoint()
    loaded = load_checkpoint(source, known_fields(preset, config_file))
    plan = ExportPlan(loaded, output, opset, "none" if no_verify else verify, force)
    config = loaded.config
    classes = f", {config.num_classes} classes" if config.num_classes else ""
    size = f"{config.in_channels}×{config.image_size}×{config.image_size}{classes}"
    progress(f"checkpoint: {source} ({plan.parameters / 1e6:.2f} M parameters, {size}, {source.stat().st_size / 1e6:.1f} MB)")
    if dry_run:
        names, batches = plan.to_verify
        checks = f"{', '.join(names)} at batch {', '.join(map(str, batches))}" if names else "nothing"
        text = f"would write {output}: forward.onnx, inverse.onnx, weights.bin ({4 * plan.parameters / 1e6:.1f} MB); would verify {checks}"
        result(as_json, {"dry_run": True, **_summary(plan)}, text)
        return
    try:
        errors = run_export(plan, sha256(source), progress)
    except ParityError as error:
        progress(parity_table(error.errors))
        raise
    if errors:
        progress(parity_table(errors))
    progress(_next_commands(output, config.num_classes))
    result(as_json, {**_summary(plan), "verification": [vars(e) for e in errors]}, str(output))


def parity_table(errors: Sequence[MoveError]) -> str:
    """One row per move at the largest batch, and the verdict over all batches."""
    largest = max(e.batch for e in errors)
    rows = [
        (e.schedule, e.move, f"{e.max_abs:.1e}", f"{e.relative_l2:.1e}", f"{e.psnr:.0f} dB", "✓" if e.ok else "✗")
        for e in errors
        if e.batch == largest or not e.ok
    ]
    worst = max(e.relative_l2 for e in errors)
    batches = ", ".join(str(b) for b in sorted({e.batch for e in errors}))
    verdict = f"{sum(e.ok for e in errors)} of {len(errors)} moves agree at batch {batches}; tolerance needed: {worst:.1e} relative L2"
    return table(("schedule", "move", "max |Δ|", "rel. L2", "PSNR", ""), rows) + "\n" + verdict


def _summary(plan: ExportPlan) -> dict[str, Any]:
    return {
        "bundle": str(plan.output),
        "checkpoint": plan.checkpoint.name,
        "parameters": plan.parameters,
        "config": plan.checkpoint.config.to_json(),
        "opset": plan.opset,
        "schedules": plan.schedules,
        "to_verify": list(plan.to_verify[0]),
    }


def _next_commands(output: Path, num_classes: int | None) -> str:
    label = " --label all" if num_classes else ""
    return (
        f"next:\n  bcm-edge generate {output} -n 16 --schedule mixture-4{label} -o images.png\n"
        f"  bcm-edge inspect {output}\n  bcm-edge verify {output}"
    )
