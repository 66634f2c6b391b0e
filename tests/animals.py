"""A model whose four classes have names, among them one that is a number and one with a comma."""

from __future__ import annotations

from pathlib import Path

from networks import TINY, random_model

from bcm_edge.model.checkpoint import save_checkpoint

ANIMALS = ("cat", "dog", "3", "tench, Tinca tinca")


def animals_checkpoint(path: Path, classes: tuple[str, ...] | None = ANIMALS) -> Path:
    """Random weights for 16×16 pixels in colour, with these names in the header."""
    save_checkpoint(path, random_model().network.state_dict(), TINY, {}, {}, classes=classes)
    return path
