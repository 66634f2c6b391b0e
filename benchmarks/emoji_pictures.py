"""Make the picture of README and docs/emoji.md: emoji inverted, redrawn in another style, and generated.

    python benchmarks/emoji_pictures.py -o docs/emoji.png

The drawings are those in the package. The model was not trained on them. The seeds are the first ones.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

import bcm_edge
from bcm_edge.runtime.pictures.grids import Grid
from bcm_edge.runtime.pictures.writing import save_images
from bcm_edge.runtime.pixels import from_uint8
from bcm_edge.runtime.schedule import SIGMA_DATA
from bcm_edge.runtime.storage.shipped import shipped_drawings

ORIGIN, TARGET = "noto", "twemoji"
SCALE = 3  # the side of a pixel of the model in the picture, in pixels


def main() -> None:
    """Write the picture."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("-o", "--output", type=Path, required=True, help="a PNG file, which is replaced")
    output: Path = parser.parse_args().output
    with np.load(shipped_drawings()) as file, bcm_edge.load("emoji") as bcm:
        classes = file["classes"].tolist()
        images = from_uint8(file["images"][file["labels"] == classes.index(ORIGIN)])
        latents = bcm.invert(images, labels=ORIGIN)
        rows = {
            f"drawings in style {ORIGIN}": images,
            "their noise, 2 calls": SIGMA_DATA * latents,
            f"from it in style {TARGET}, 1 call": bcm.generate(latents=latents, labels=TARGET),
        }
        for name in ("one-step", "ancestral-2", "mixture-4"):
            nfe = bcm.bundle.schedule(name).nfe
            title = f"from random noise, {nfe} {'call' if nfe == 1 else 'calls'}"
            rows[title] = bcm.generate(len(images), schedule=name, labels=ORIGIN)
    grid = Grid(rows=list(rows.values()), row_labels=list(rows), group=3)
    save_images(images, output, force=True, grid=grid, scale=SCALE)


if __name__ == "__main__":
    main()
