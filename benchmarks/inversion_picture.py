"""Make the picture of the README: ten digits of the MNIST model, their latents, and their reconstructions.

    bcm-edge export mnist -o mnist.bundle
    python benchmarks/inversion_picture.py mnist.bundle -o docs/inversion.png

The digits are generated, because the package contains no images of MNIST.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

import bcm_edge
from bcm_edge.runtime.pictures.writing import save_images
from bcm_edge.runtime.schedule import SIGMA_DATA

SEED = 0
SIDE = 3  # the side of a pixel of the model in the picture, in pixels


def main() -> None:
    """Write the picture."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True, help="a picture, which is replaced")
    arguments = parser.parse_args()
    labels = list(range(10))
    with bcm_edge.load(arguments.bundle, backend="onnxruntime") as bcm:
        images = bcm.generate(10, schedule="mixture-4", seed=SEED, labels=labels)
        latents = bcm.invert(images, inversion="invert-2", labels=labels)
        again = bcm.generate(latents=latents, schedule="one-step", labels=labels)
    rows = np.concatenate([images, SIGMA_DATA * latents, again])
    save_images(rows.repeat(SIDE, axis=2).repeat(SIDE, axis=3), arguments.output, force=True, columns=10)
    print(f"mean squared error in [0, 1]: {np.mean(np.square((again - images) / 2)):.4f}")


if __name__ == "__main__":
    main()
