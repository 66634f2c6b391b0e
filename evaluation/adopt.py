"""Copy the schedules of a bundle into a checkpoint.

`bcm-edge calibrate --search-schedule` writes the levels that it chooses into the manifest of a bundle. A
checkpoint that ships contains its schedules, so that every bundle that is exported from it has them.
"""

from __future__ import annotations

from pathlib import Path

from ..model.checkpoint import load_checkpoint, save_checkpoint
from ..runtime.storage.bundle import open_bundle


def adopt(bundle: Path, checkpoint: Path) -> dict[str, str]:
    """Write the bundle's named schedules into the checkpoint file.

    Returns the schedules, name → text. Raises BundleError or CheckpointError.
    """
    schedules = dict(open_bundle(bundle).manifest.schedules)
    trained = load_checkpoint(checkpoint)
    trained.require("bcm")
    save_checkpoint(
        checkpoint,
        trained.state_dict,
        trained.config,
        schedules,
        trained.provenance,
        classes=trained.classes,
    )
    return schedules
