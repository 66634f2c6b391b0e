"""How a command refuses what cannot be used, and two ways to make it so."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from click.testing import Result


def refusal(ended: Result, lines: int = 1) -> str:
    """The message of a command that refused its input: exit code 2, nothing on stdout, one line at the end of stderr."""
    assert ended.exit_code == 2
    assert ended.stdout == ""
    message = ended.stderr.rpartition("error: ")[2]
    assert message != ended.stderr
    assert message.count("\n") == lines
    return message.rstrip("\n")


def edit_manifest(bundle: Path, change: Callable[[dict[str, Any]], None]) -> None:
    manifest = json.loads((bundle / "manifest.json").read_text())
    change(manifest)
    (bundle / "manifest.json").write_text(json.dumps(manifest))


class Payload:
    """Unpickling this creates a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.target), "w")
