"""Measure how many latents of images, and of changed images, are called far from noise (docs/tasks.md).

    python benchmarks/far_latents.py digits
    python benchmarks/far_latents.py mnist mnist_test.npz -n 60
    python benchmarks/far_latents.py emoji emoji-test.npz

Without a file, the images are the validation digits.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from result_files import add_output, origin, write_figures

import bcm_edge
from bcm_edge.runtime.arguments import check_labels
from bcm_edge.runtime.pictures.images import read_image_set
from bcm_edge.runtime.pixels import SIGNED
from bcm_edge.runtime.tasks.latents import far_from_noise


def main() -> None:
    """Print a row per change of the images."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("bundle", help="a bundle, or the name of a model in the package")
    parser.add_argument("file", nargs="?", type=Path, help="an npz file with images and labels")
    parser.add_argument("-n", type=int, default=180, help="at most so many images (default: 180)")
    add_output(parser)
    arguments = parser.parse_args()
    measured_by = origin()
    with bcm_edge.load(arguments.bundle, value_range=SIGNED) as bcm:
        images, labels = read(bcm, arguments.file, arguments.n)
        figures = {}
        for name, changed in changes(images).items():
            others = (labels + 1) % bcm.num_classes if name == "with wrong labels" else labels
            latents = bcm.invert(changed, labels=others)
            deviations = np.quantile(latents.std(axis=(1, 2, 3)), [0, 0.5, 1])
            figures[name] = {
                "far": float(far_from_noise(latents).mean()),
                "deviations": [round(float(value), 2) for value in deviations],
            }
            low, middle, high = figures[name]["deviations"]
            print(f"{name:<34} {figures[name]['far']:4.0%}   deviation {low} to {high}, median {middle}")
    write_figures(arguments.output, measured_by, {"images": len(images), **figures})


def read(bcm: bcm_edge.BCM, file: Path | None, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return at most n images, float32 [N, C, H, W] in [-1, 1], and their labels, int64 [N]."""
    if file is None:
        from bcm_edge.training.data import load_digits

        digits = load_digits("validation")
        assert digits.labels is not None
        return digits.images.numpy()[:n], digits.labels.numpy()[:n]
    found = read_image_set([file], bcm.sample_shape)
    labels = check_labels(found.labels, len(found.images), bcm.num_classes, bcm.classes)
    assert labels is not None
    return found.images[:n], labels[:n]


def changes(images: np.ndarray) -> Mapping[str, np.ndarray]:
    """Return images by the names of the rows of docs/tasks.md."""
    noise = np.random.default_rng(0).uniform(-1, 1, images.shape).astype(np.float32)
    return {
        "test images with their labels": images,
        "with wrong labels": images,
        "negatives": -images,
        "white pictures": np.ones_like(images),
        "grey pictures": np.zeros_like(images),
        "black pictures": -np.ones_like(images),
        "uniform noise": noise,
        "brighter by a quarter of the range": np.clip(images + 0.5, -1, 1),
        "half the contrast": images / 2,
    }


if __name__ == "__main__":
    main()
