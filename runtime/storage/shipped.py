"""The bundles of the models in this package. Their names stand for their folders."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from ..log import log

# Class-conditional models of emoji in colour, 32×32 pixels, and of handwritten digits, 8×8 and 28×28 pixels.
SHIPPED = ("emoji", "digits", "mnist")
DRAWINGS = "drawings.npz"  # emoji that the model was not trained on
_MODELS = Path(__file__).parents[2] / "model"


def shipped_bundle(name: str) -> Path:
    """Return the folder of a model's bundle in the package. name: one of SHIPPED."""
    return _MODELS / f"{name}.bundle"


def shipped_drawings() -> Path:
    """Return the file of 24 emoji in the package that the emoji model was not trained on.

    Its arrays are images, uint8 [24, 3, 32, 32], labels (the style), classes (the names of the styles) and
    names. Each name is drawn in three styles.
    """
    return _MODELS / DRAWINGS


def measured_quality(checkpoint_sha256: str) -> dict[str, dict[str, Any]]:
    """Return the quality of the schedules of a shipped model, as its bundle in the package has it.

    It was measured on test images, and belongs to these weights and schedules. Returns {} for another
    checkpoint.
    """
    for name in SHIPPED:
        manifest = json.loads((shipped_bundle(name) / "manifest.json").read_text(encoding="utf-8"))
        if manifest["provenance"]["checkpoint"]["sha256"] == checkpoint_sha256:
            return manifest["quality"]
    return {}


def located(path: Path | str) -> Path:
    """Return the path of a bundle, or the folder in the package if the path is the name of a shipped model.

    A file or folder of that name in the current folder comes first.
    """
    name = os.fspath(path)
    if name not in SHIPPED:
        return Path(path)
    if os.path.lexists(name):
        log.info("bundle: %r in the current folder, not the shipped model of this name", name)
        return Path(path)
    log.info("bundle: the shipped model %s", name)
    return shipped_bundle(name)


def shipped_name(bundle: Path) -> str | None:
    """Return the name of the shipped model whose bundle in the package is this folder; None for others."""
    folders = {os.path.realpath(shipped_bundle(name)): name for name in SHIPPED}
    return folders.get(os.path.realpath(bundle))
