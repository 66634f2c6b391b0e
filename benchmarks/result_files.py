"""The result files of benchmarks: figures as JSON, with the command, the date and the machine."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

HELP = "write the figures to this JSON file, with the command, the date and the machine; it is replaced"


def add_output(parser: argparse.ArgumentParser) -> None:
    """Add the option -o FILE, whose value is `output`, a Path or None."""
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help=HELP)


def origin(command: Sequence[str] | None = None) -> dict[str, Any]:
    """Return the command, the date and the machine of a measurement, for JSON.

    Call it before the measurement, because it contains the load of the machine. command: by default that of
    this process.
    """
    from bcm_edge import __version__
    from bcm_edge.runtime.machine.environment import environment

    own = ["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]]
    return {
        "command": shlex.join(command or own),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "bcm_edge": __version__,
        "environment": environment(),
    }


def write_figures(path: Path | None, measured_by: dict[str, Any], figures: Any) -> None:
    """Write a result file, and name it on standard error. Nothing is written if `path` is None.

    measured_by: the result of `origin`.
    """
    if path is not None:
        write_json(path, {**measured_by, "figures": figures}, indent=1)
        print(f"figures: {path}", file=sys.stderr)


def write_json(path: Path, values: Any, indent: int | None = None) -> None:
    """Write a JSON file atomically."""
    from bcm_edge.runtime.storage.files import write_atomically

    write_atomically(path, json.dumps(values, indent=indent, ensure_ascii=False) + "\n")
