"""A model with four named classes, and folders of pictures.

One class name is a number and one contains a comma.
"""

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
    """Write random weights for 16×16 colour pixels, with these class names in the header. Return the path."""
    save_checkpoint(path, random_model().network.state_dict(), TINY, {}, {}, classes=classes)
    return path


def picture(file: Path, size: tuple[int, int] = (16, 16), mode: str = "RGB") -> Path:
    """Write a noisy picture that is mostly red. Return its path. size: width and height."""
    file.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(sum(file.name.encode()))
    pixels = random.integers(0, 100, (size[1], size[0], 3), dtype=np.uint8)
    pixels[..., 0] += 150
    Image.fromarray(pixels).convert(mode).save(file)
    return file


def classes(folder: Path, names: Sequence[str], n: int = 2, **options: Any) -> str:
    """Write a folder with n pictures of every class. Return its path."""
    for name in names:
        for index in range(n):
            picture(folder / name / f"{name}{index}.png", **options)
    return str(folder)
