"""Check that a command refuses its input, and make bad inputs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from click.testing import Result

from bcm_edge.runtime.storage.bundle import describe_files


def refusal(result: Result, lines: int = 1) -> str:
    """Return the error message of a command that refused its input.

    Checks that the exit code is 2, that stdout is empty, and that the message is the last line of stderr.
    lines: the number of lines of the message.
    """
    assert result.exit_code == 2
    assert result.stdout == ""
    message = result.stderr.rpartition("error: ")[2]
    assert message != result.stderr
    assert message.count("\n") == lines
    return message.rstrip("\n")


def edit_manifest(bundle: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Apply a change to the manifest of a bundle."""
    manifest = json.loads((bundle / "manifest.json").read_text())
    change(manifest)
    (bundle / "manifest.json").write_text(json.dumps(manifest))


def update_hashes(bundle: Path) -> None:
    """Write the sizes and hashes that the files of a bundle have now into its manifest."""
    files = describe_files(bundle)
    edit_manifest(bundle, lambda m: m.update(files={name: vars(files[name]) for name in m["files"]}))


class Payload:
    """An object that creates a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.target), "w")
