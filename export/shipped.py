"""Write the bundles of the shipped models into the package: `make bundles` in a checkout.

A bundle in the package has one file of weights: the checkpoint of the model, in float16. Its float32 graphs
load the weights from that file, so that the weights are stored once (docs/model.md).
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from ..model.checkpoint import load_checkpoint, shipped_checkpoint
from ..runtime.machine.temporary import temporary_folder
from ..runtime.storage.shipped import SHIPPED, shipped_bundle
from .exporter import ExportPlan, Report, export


def write_bundle(name: str, output: Path, report: Report = lambda line: None) -> None:
    """Export a shipped model, in the form of the bundles in the package, and verify it. name: of SHIPPED.

    Raises OutputError if the output exists; ParityError, and writes nothing, if the graphs are inexact.
    """
    checkpoint = load_checkpoint(shipped_checkpoint(name))
    plan = ExportPlan(checkpoint, output, verify="full", copy_checkpoint=True)
    export(plan, checkpoint.sha256(), report)


def main() -> None:
    """Replace the bundles in the package."""
    for name in SHIPPED:
        with temporary_folder() as folder:
            write_bundle(name, folder / name, lambda line: print(line, file=sys.stderr))
            for file in (folder / name).iterdir():
                shutil.copyfile(file, shipped_bundle(name) / file.name)


if __name__ == "__main__":
    main()
