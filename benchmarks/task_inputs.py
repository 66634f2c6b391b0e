"""Make two example files of docs/tasks.md: ten test digits after an attack, and ten coloured digits in grey.

python benchmarks/task_inputs.py -o demo
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from coloured_digits import coloured_digits

from bcm_edge.evaluation.attack import square_attack
from bcm_edge.evaluation.classifier import train_classifier
from bcm_edge.runtime.storage.arrays import save_npz
from bcm_edge.runtime.tasks.constrained import LUMA
from bcm_edge.training.data import load_digits

BUDGET, QUERIES = 0.3, 200


def main() -> None:
    """Write attacked.npz and grey.npz, each with one digit per class."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument(
        "-o", "--output", type=Path, required=True, help="the folder for attacked.npz and grey.npz"
    )
    parser.add_argument("--force", action="store_true", help="replace files that exist")
    arguments = parser.parse_args()
    digits, (coloured, labels) = load_digits("test"), coloured_digits("test")
    first = [int(np.flatnonzero(labels == k)[0]) for k in range(10)]  # of each class
    images, labels = digits.images.numpy()[first], labels[first]
    classifier = train_classifier(load_digits("train"))
    files = {
        "attacked": square_attack(classifier, images, labels, BUDGET, QUERIES, seed=0),
        "grey": (LUMA * coloured[first]).sum(axis=1, keepdims=True),
    }
    for name, values in files.items():
        arrays = {"images": values.astype(np.float32), "labels": labels}
        save_npz(arguments.output / f"{name}.npz", arrays, arguments.force)
    print(f"{arguments.output}: attacked.npz, grey.npz")


if __name__ == "__main__":
    main()
