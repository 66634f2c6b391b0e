"""A model whose four classes have names, among them one that is a number and one with a comma; and folders of pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from networks import TINY, random_model
from PIL import Image

from bcm_edge.model.checkpoint import save_checkpoint

ANIMALS = ("cat", "dog", "3", "tench, Tinca tinca")


def animals_checkpoint(path: Path, classes: tuple[str, ...] | None = ANIMALS) -> Path:
    """Random weights for 16×16 pixels in colour, with these names in the header."""
    save_checkpoint(path, random_model().network.state_dict(), TINY, {}, {}, classes=classes)
    return path


def picture(file: Path, size: tuple[int, int] = (16, 16), mode: str = "RGB") -> Path:
    """A noisy picture, mostly red."""
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(sum(file.name.encode())).integers(
        0, 100, (size[1], size[0], 3), dtype=np.uint8
    )
    pixels[..., 0] += 150
    Image.fromarray(pixels).convert(mode).save(file)
    return file


def classes(folder: Path, names: Sequence[str], n: int = 2, **options: Any) -> str:
    """A folder with n pictures of every class."""
    for name in names:
        for index in range(n):
            picture(folder / name / f"{name}{index}.png", **options)
    return str(folder)
