"""The part of bcm-edge inspect for checkpoints: what their tensors say, and what must be given."""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..runtime.checks.doctor import require_extra
from ..runtime.wording import listed
from .console import note, result
from .options import known_fields
from .tables import table

if TYPE_CHECKING:
    from ..model.examination import Examination

_KINDS = {
    "bcm": "a BCM, which generates and inverts",
    "ict": "a consistency model with one noise level, like iCT; it must be trained further to invert",
    "edm": "an EDM denoiser, a baseline for evaluate and a start for train",
}


def inspect_checkpoint(path: Path, preset: str | None, config_file: Path | None, as_json: bool) -> None:
    """Print what a checkpoint contains, and the command that uses it. Raises CheckpointError."""
    require_extra("export")
    from ..model.examination import examine

    found = examine(path, known_fields(preset, config_file))
    for line in found.notes:
        note(line)
    command = _command(path, found, preset, config_file)
    values: dict[str, Any] = {
        "checkpoint": str(path),
        **asdict(found),
        "missing": found.missing,
        "next": command,
    }
    result(as_json, values, "\n\n".join(_sections(path, found, command)))


def _sections(path: Path, found: Examination, command: list[str]) -> list[str]:
    """Return the parts of the text, which empty lines separate."""
    size = f"{found.tensors} tensors, {found.parameters / 1e6:.2f} M parameters, stored as {found.stored_as}"
    lines = [f"{path}: {_KINDS.get(found.kind, found.kind)}; {size}"]
    if found.classes:
        lines.append(f"classes: {listed(found.classes)}")
    rows = [
        (field.name, json.dumps(field.value) if field.source else "?", field.source or "must be given")
        for field in found.fields
    ]
    return [*lines, table(("field", "value", "from"), rows, ("value", "from")), "\n".join(command)]


def _command(path: Path, found: Examination, preset: str | None, config_file: Path | None) -> list[str]:
    """Return lines that say what to type next."""
    options = (
        f" --preset {preset}"
        if preset
        else f" --config {shlex.quote(str(config_file))}"
        if config_file
        else ""
    )
    if not found.missing:
        return [f"use it:  {_use(path, found.kind, options)}"]
    fields = json.dumps(dict.fromkeys(found.missing, "?")).replace('"?"', "?")
    lines = [f"use it:  {_use(path, found.kind, f' --preset {name}')}" for name in found.presets]
    start = "or give" if lines else "give"
    return [
        *lines,
        f"{start} the missing fields in a file network.json, with numbers in place of ?:",
        f"  {fields}",
        f"use it:  {_use(path, found.kind, ' --config network.json')}",
    ]


def _use(checkpoint: Path, kind: str, options: str) -> str:
    """Return the command that uses a checkpoint of this kind."""
    path, name = shlex.quote(str(checkpoint)), shlex.quote(checkpoint.name.split(".")[0])
    if kind == "ict":
        return f"bcm-edge train --init {path}{options} --data DATA -o {name}.safetensors"
    if kind == "edm":
        return f"bcm-edge evaluate BUNDLE --data DATA --baseline {path} -o report.html"
    return f"bcm-edge export {path}{options} -o {name}.bundle"
