"""Gives a checkpoint the schedules that were found for its bundle: `python -m bcm_edge.evaluation.adopt BUNDLE CHECKPOINT`.

`calibrate --search-schedule` writes the levels it finds into a bundle's manifest; a checkpoint that ships carries its own, so that every
bundle made of it has them.
"""

from __future__ import annotations

import sys
from pathlib import Path

from ..model.checkpoint import load_checkpoint, save_checkpoint
from ..runtime.storage.bundle import open_bundle


def adopt(bundle: Path, checkpoint: Path) -> dict[str, str]:
    """Rewrite the checkpoint with the bundle's named schedules, and return them: name → text."""
    schedules = dict(open_bundle(bundle).manifest.schedules)
    found = load_checkpoint(checkpoint)
    found.require("bcm")
    save_checkpoint(
        checkpoint, found.state_dict, found.config, schedules, found.provenance, classes=found.classes
    )
    return schedules


if __name__ == "__main__":
    for name, text in adopt(Path(sys.argv[1]), Path(sys.argv[2])).items():
        print(f"{name}: {text}")
