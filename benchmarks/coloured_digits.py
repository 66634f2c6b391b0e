"""Make data for colourisation: scikit-learn's 8×8 digits, each in the colour of its class on black.

    python benchmarks/coloured_digits.py -o colour.npz                  the training part
    python benchmarks/coloured_digits.py -o unseen.npz --part test      digits that no model was trained on

The hue of class k is k / 10 of the circle, fully saturated. The label alone therefore determines the colour;
a colourisation has to find its place. The file has `images`, float32 [N, 3, 8, 8] in [-1, 1], and `labels`,
int64 [N].
"""

from __future__ import annotations

import argparse
import colorsys
from pathlib import Path

import numpy as np

from bcm_edge.runtime.storage.arrays import save_npz
from bcm_edge.training.data import load_digits


def coloured_digits(part: str) -> tuple[np.ndarray, np.ndarray]:
    """Return images and labels of a part of the digits: "train", "validation" or "test"."""
    digits = load_digits(part)
    assert digits.labels is not None
    labels, ink = digits.labels.numpy(), (digits.images.numpy() + 1) / 2
    colours = np.array([colorsys.hsv_to_rgb(k / 10, 1, 1) for k in range(10)], np.float32)
    return 2 * ink * colours[labels][:, :, None, None] - 1, labels


def main() -> None:
    """Write the npz file."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("-o", "--output", type=Path, required=True, help="the npz file to write")
    parser.add_argument("--part", choices=("train", "validation", "test"), default="train")
    parser.add_argument("--force", action="store_true", help="replace the file if it exists")
    arguments = parser.parse_args()
    images, labels = coloured_digits(arguments.part)
    save_npz(arguments.output, {"images": images, "labels": labels}, arguments.force)
    shape = f"{images.dtype} {list(images.shape)}"
    print(f"{arguments.output}: {len(images)} images, {shape}, labels {labels.min()} to {labels.max()}")


if __name__ == "__main__":
    main()
