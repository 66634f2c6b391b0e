"""Make the example files of docs/tasks.md from ten test digits: whole, damaged, small, attacked, and in grey.

python benchmarks/task_inputs.py -o inputs
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from coloured_digits import coloured_digits

from bcm_edge.evaluation.attack import square_attack
from bcm_edge.evaluation.classifier import train_classifier
from bcm_edge.evaluation.degradations import jpeg
from bcm_edge.runtime.pictures.writing import save_images
from bcm_edge.runtime.storage.arrays import save_npz
from bcm_edge.runtime.tasks.constrained import LUMA
from bcm_edge.training.data import load_digits

BUDGET, QUERIES = 0.3, 200
QUALITY = 10  # of the JPEG of the damaged digits


def main() -> None:
    """Write five npz files, each with one digit per class, and three pictures: two digits and a mask."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("-o", "--output", type=Path, required=True, help="a folder")
    parser.add_argument("--force", action="store_true", help="replace files that exist")
    arguments = parser.parse_args()
    output, force = arguments.output, arguments.force
    digits, (coloured, labels) = load_digits("test"), coloured_digits("test")
    first = [int(np.flatnonzero(labels == k)[0]) for k in range(10)]  # of each class
    images, labels = digits.images.numpy()[first], labels[first]
    classifier = train_classifier(load_digits("train"))
    files = {
        "digits": images,
        "damaged": jpeg(images, QUALITY),
        "small": images.reshape(10, 1, 4, 2, 4, 2).mean(axis=(3, 5)),
        "attacked": square_attack(classifier, images, labels, BUDGET, QUERIES, seed=0),
        "grey": (LUMA * coloured[first]).sum(axis=1, keepdims=True),
    }
    hole = np.full(images.shape[1:], -1)
    hole[:, 4:] = 1
    output.mkdir(parents=True, exist_ok=True)
    for name, values in files.items():
        save_npz(output / f"{name}.npz", {"images": values.astype(np.float32), "labels": labels}, force)
    for name, picture in (("three", images[3]), ("five", images[5]), ("hole", hole)):
        save_images(picture[None], output / f"{name}.png", force, scale=1)
    print(f"{output}: {', '.join(file.name for file in sorted(output.iterdir()))}")


if __name__ == "__main__":
    main()
