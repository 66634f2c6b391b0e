"""bcm-edge verify, inspect, doctor: is this bundle what it says, what is in it, and what can run here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from ..runtime.bundle import open_bundle
from ..runtime.parity import compare, load_recording
from ..runtime.pipeline import load
from .console import backend_option, bundle_argument, json_option, progress, result, table
from .export import parity_table


@click.command(short_help="Play a bundle and compare with torch.", epilog="Example:  bcm-edge verify digits.bundle")
@bundle_argument
@backend_option
@click.option("--bound", default=1e-4, show_default=True, type=click.FloatRange(0, min_open=True), help="Relative L2 each move may stray.")
@click.pass_context
@json_option
def verify(context: click.Context, bundle: Path, backend: str, bound: float, as_json: bool) -> None:
    """Play the bundle's recorded schedules here and compare with what torch made of them; exit code 1 if they disagree.

    Needs no torch: the recording is golden.npz in the bundle.
    """
    with load(bundle, backend) as bcm:
        recording = load_recording(bcm.bundle)
        sizes = sorted({1, min(2, len(recording.seeds)), len(recording.seeds)})
        errors = compare(bcm.backend, recording, sizes, bound)
        progress(f"{bundle} on {bcm.backend.name}: {bcm.backend.device}")
    ok = all(e.ok for e in errors)
    values = {"bundle": str(bundle), "backend": bcm.backend.name, "ok": ok, "bound": bound, "moves": [vars(e) for e in errors]}
    result(as_json, values, f"{parity_table(errors)}\n{'verified' if ok else 'FAILED'}: bound {bound:.0e} per move")
    context.exit(0 if ok else 1)


@click.command(short_help="What a bundle holds.", epilog="Example:  bcm-edge inspect digits.bundle")
@bundle_argument
@json_option
def inspect(bundle: Path, as_json: bool) -> None:
    """Show what a bundle holds: the model, its schedules, its files and where it comes from."""
    opened = open_bundle(bundle)
    manifest = opened.manifest
    model = manifest.model
    classes = f"{model.num_classes} classes" if model.num_classes else "no classes"
    c, h, w = model.sample_shape
    parts = [
        f"{model.name}: {c}×{h}×{w}, {classes}, {model.parameters / 1e6:.2f} M parameters",
        table(("schedule", "NFE", "program"), [(name, opened.schedule(name).nfe, text) for name, text in manifest.schedules.items()]),
        table(("file", "bytes", "sha256"), [(name, f.size, f.sha256[:12]) for name, f in manifest.files.items()]),
        f"precisions: {', '.join(manifest.graphs)}",
        "\n".join(f"{key}: {json.dumps(value)}" for key, value in manifest.provenance.items()),
    ]
    values: dict[str, Any] = {"bundle": str(bundle), "model": vars(model), "schedules": manifest.schedules, "graphs": manifest.graphs}
    values |= {"files": {name: vars(f) for name, f in manifest.files.items()}, "provenance": manifest.provenance, "schema": manifest.schema}
    result(as_json, values, "\n\n".join(parts))


@click.command(short_help="What runs here, what does not, the fix.", epilog="Example:  bcm-edge doctor digits.bundle")
@click.argument("bundle", required=False, type=click.Path(path_type=Path))
@click.pass_context
@json_option
def doctor(context: click.Context, bundle: Path | None, as_json: bool) -> None:
    """Say what runs here, what does not, and the one line that fixes it. Exit code 1 if nothing can run a bundle."""
    from ..runtime.doctor import examine

    findings = examine(bundle)
    lines = [f"{'✓' if f.ok else '✗'} {f.subject}: {f.detail}" + (f"\n    fix: {f.fix}" if f.fix else "") for f in findings]
    ok = not any(f.blocks for f in findings)
    lines.append("bundles can run here" if ok else "bundles cannot run here yet")
    result(as_json, {"ok": ok, "findings": [vars(f) for f in findings]}, "\n".join(lines))
    context.exit(0 if ok else 1)
