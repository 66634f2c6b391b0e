"""bcm-edge inspect: the contents of a bundle, or of a checkpoint; the origin of a picture."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from ..runtime.engines.store import broken_engines, engines
from ..runtime.storage.bundle import Bundle, open_bundle
from ..runtime.storage.manifest import ModelFacts
from ..runtime.storage.not_bundles import is_checkpoint, is_diffusers_folder
from ..runtime.wording import MOST, listed, printable
from .console import result
from .inspect_checkpoint import inspect_checkpoint
from .inspect_picture import inspect_picture, is_picture
from .options import bundle_argument, config_option, json_option, preset_option
from .tables import table


@click.command(
    short_help="Show the contents of a bundle, checkpoint or picture.",
    epilog="Example:  bcm-edge inspect digits",
)
@bundle_argument
@preset_option
@config_option
@json_option
@click.pass_context
def inspect(
    context: click.Context, bundle: Path, preset: str | None, config_file: Path | None, as_json: bool
) -> None:
    """Show the contents of BUNDLE: the model, its schedules, files, verdicts, engines and origin.

    BUNDLE may also be a checkpoint, or the folder of a consistency model of diffusers. The command then shows
    where each field of the configuration comes from (the tensors, the header of the file, --preset or
    --config), which fields must be given, and what to type next.

    BUNDLE may also be a PNG picture of bcm-edge. The command then shows how the picture was made, and the
    command that repeats it.
    """
    is_file = os.path.isfile(bundle)  # noqa: PTH113, a name may be too long for stat
    if (is_file and is_checkpoint(bundle)) or is_diffusers_folder(bundle):
        inspect_checkpoint(bundle, preset, config_file, as_json)
        return
    if is_file and is_picture(bundle):
        inspect_picture(context, bundle, as_json)
        return
    if preset or config_file:
        raise click.UsageError("--preset and --config are for checkpoints; a bundle has its configuration")
    opened = open_bundle(bundle)
    result(as_json, _values(bundle, opened), "\n\n".join(_sections(opened)))


def _values(bundle: Path, opened: Bundle) -> dict[str, Any]:
    manifest = opened.manifest
    return {
        "bundle": str(bundle),
        "model": vars(manifest.model),
        "schedules": manifest.schedules,
        "graphs": manifest.graphs,
        "files": {name: vars(facts) for name, facts in manifest.files.items()},
        "provenance": manifest.provenance,
        "schema": manifest.schema,
        "engines": {
            **{engine.name: asdict(engine.facts) for engine in engines(opened)},
            **{engine.name: {"problem": engine.problem} for engine in broken_engines(opened)},
        },
        "precisions": opened.precisions,
        "fingerprints": {precision: opened.fingerprint(precision) for precision in opened.precisions},
        "quality": manifest.quality,
        "verdicts": [verdict.to_json() for verdict in opened.verdicts()],
    }


def _sections(opened: Bundle) -> list[str]:
    """Return the parts of the text, which empty lines separate."""
    manifest = opened.manifest
    schedules = [
        (name, opened.schedule(name).nfe, text, _quality(manifest.quality.get(name)))
        for name, text in manifest.schedules.items()
    ]
    files = [(name, facts.size, facts.sha256[:12]) for name, facts in manifest.files.items()]
    all_engines = [*engines(opened), *broken_engines(opened)]
    precisions = [f"{name} (sha256 {opened.fingerprint(name)[:12]})" for name in opened.precisions]
    verdicts = [f"  {verdict}" for verdict in opened.verdicts()]
    return [
        *_model(manifest.model),
        table(("schedule", "NFE", "levels", "quality"), schedules, ("levels", "quality")),
        table(("file", "bytes", "sha256"), files),
        "\n".join([f"precisions: {', '.join(precisions)}", *verdicts]),
        "\n".join([f"engines: {len(all_engines) or 'none'}", *(f"  {engine}" for engine in all_engines)]),
        "\n".join(_lines(manifest.provenance)),
    ]


def _model(model: ModelFacts) -> list[str]:
    classes = f"{model.num_classes} classes" if model.num_classes else "no classes"
    channels, height, width = model.sample_shape
    shape = f"{channels}×{height}×{width}"
    lines = [f"{model.name}: {shape}, {classes}, {model.parameters / 1e6:.2f} M parameters"]
    if model.classes:
        names = [f"{label} {name}" for label, name in enumerate(model.classes)]
        more = " (--json lists all)" if len(names) > MOST + 1 else ""
        lines.append(f"classes: {listed(names)}{more}")
    return lines


def _lines(values: dict[str, Any], indent: str = "") -> list[str]:
    """Return one line per field of the provenance. The fields of an object are indented below its name."""
    lines = []
    for name, value in values.items():
        start = f"{indent}{printable(name)}:"
        if isinstance(value, dict):
            lines += [start, *_lines(value, f"{indent}  ")]
        else:
            text = json.dumps(value)
            lines.append(f"{start} {text[1:-1] if isinstance(value, str) else text}")
    return lines


def _quality(measured: dict[str, Any] | None) -> str:
    """Return what a search of schedules measured, in words."""
    if not measured:
        return "not measured"
    names = {"frechet_ratio": "Fréchet ratio", "reconstruction_mse": "MSE"}
    shown = ", ".join(f"{names[key]} {value:.4g}" for key, value in measured.items() if key in names)
    return f"{shown} on {measured.get('data')}"
