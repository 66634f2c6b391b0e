"""Prepare the drawings that the emoji model is trained and measured on.

    python -m bcm_edge.evaluation.emoji_data emoji64.npz -o emoji-data

docs/emoji.md describes emoji64.npz. The program writes three files that `--data` accepts, with images of
32×32 pixels: emoji.npz to train on, emoji-test.npz with the held-out drawings, and drawings.npz, a few of the
held-out ones, which ship with the package. Needs numpy only.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..runtime.storage.arrays import read_arrays, required, save_npz
from ..runtime.storage.shipped import DRAWINGS

Drawings = dict[str, np.ndarray]  # images uint8 [N, 3, S, S], labels, classes, names, as in the files

CATEGORY = "Smileys & Emotion"
EVERY = 10  # every tenth name is held out
FACTOR = 2  # squares of 2×2 pixels become one
SHIPPED_NAMES = (
    "beating-heart",
    "cowboy-hat-face",
    "ghost",
    "grinning-face-with-big-eyes",
    "hushed-face",
    "ogre",
    "smiling-face-with-halo",
    "star-struck",
)


def read_drawings(path: Path, categories: Sequence[str] = (CATEGORY,)) -> tuple[Drawings, Drawings]:
    """Return (training drawings, held-out drawings) of some categories.

    Every tenth of the sorted names of all categories that are drawn in every style is held out, with all its
    drawings. path: an npz file with images uint8 [N, 3, 64, 64], labels (style) with label_names, categories
    with category_names, and names.

    Raises ImageError if an array is missing, InputError for an unknown category.
    """
    arrays = read_arrays(path, "images")
    names, styles = required(arrays, "names", path), required(arrays, "labels", path)
    style_names = required(arrays, "label_names", path)
    category_names = required(arrays, "category_names", path).tolist()
    if unknown := [category for category in categories if category not in category_names]:
        raise InputError(f"{path}: no category {unknown[0]!r}; it has {', '.join(category_names)}")
    numbers = [category_names.index(category) for category in categories]
    selected = np.isin(required(arrays, "categories", path), numbers)
    held_out = np.isin(names, held_out_names(names, styles))

    def part(rows: np.ndarray) -> Drawings:
        images = shrunk(required(arrays, "images", path)[rows])
        return {"images": images, "labels": styles[rows], "classes": style_names, "names": names[rows]}

    return part(selected & ~held_out), part(selected & held_out)


def held_out_names(names: np.ndarray, styles: np.ndarray) -> list[str]:
    """Return every tenth of the sorted names that are drawn in all styles. names, styles: one per drawing."""
    every_style = set(styles.tolist())
    drawn: dict[str, set[int]] = {}
    for name, style in zip(names.tolist(), styles.tolist(), strict=True):
        drawn.setdefault(name, set()).add(style)
    return sorted(name for name, found in drawn.items() if found == every_style)[::EVERY]


def shrunk(images: np.ndarray) -> np.ndarray:
    """Return images of half the side: the rounded means of squares. images: uint8 [N, C, H, W]."""
    n, channels, height, width = images.shape
    squares = images.reshape(n, channels, height // FACTOR, FACTOR, width // FACTOR, FACTOR)
    return np.round(squares.mean(axis=(3, 5))).astype(np.uint8)


def few(drawings: Drawings, names: Sequence[str] = SHIPPED_NAMES) -> Drawings:
    """Return the drawings of some names, sorted by style and then in the order of the names."""
    names = [name for name in names if name in drawings["names"]]
    order = [
        int(np.flatnonzero((drawings["names"] == name) & (drawings["labels"] == style))[0])
        for style in range(len(drawings["classes"]))
        for name in names
    ]
    return {key: array if key == "classes" else array[order] for key, array in drawings.items()}


def write_drawings(source: Path, folder: Path, categories: Sequence[str] = (CATEGORY,)) -> tuple[Path, Path]:
    """Write emoji.npz, emoji-test.npz and drawings.npz into a folder; return the first two.

    source, categories: as for `read_drawings`, which raises the same errors. Existing files are replaced.
    """
    train, test = read_drawings(source, categories)
    folder.mkdir(parents=True, exist_ok=True)
    train_file, test_file = folder / "emoji.npz", folder / "emoji-test.npz"
    for file, drawings in ((train_file, train), (test_file, test), (folder / DRAWINGS, few(test))):
        save_npz(file, drawings, force=True)
    return train_file, test_file


def main() -> None:
    """Write the three files."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("source", type=Path, help="emoji64.npz")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder; its files are replaced")
    parser.add_argument("--category", action="append", help=f"may be repeated (default: {CATEGORY!r})")
    arguments = parser.parse_args()
    for file in write_drawings(arguments.source, arguments.output, arguments.category or (CATEGORY,)):
        with np.load(file) as arrays:
            print(f"{file}: {len(arrays['images'])} drawings")


if __name__ == "__main__":
    main()
