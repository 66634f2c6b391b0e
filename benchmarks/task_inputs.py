"""Two inputs of docs/tasks.md that take more than the package: ten test digits attacked, and ten coloured ones in grey.

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
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "-o", "--output", type=Path, required=True, help="the folder to write attacked.npz and grey.npz to"
    )
    parser.add_argument("--force", action="store_true", help="replace files that exist")
    arguments = parser.parse_args()
    test, (coloured, labels) = load_digits("test"), coloured_digits("test")
    first = [int(np.flatnonzero(labels == k)[0]) for k in range(10)]  # one per class
    images, labels, grey = (
        test.images.numpy()[first],
        labels[first],
        (LUMA * coloured[first]).sum(axis=1, keepdims=True),
    )
    attacked = square_attack(train_classifier(load_digits("train")), images, labels, BUDGET, QUERIES, seed=0)
    for name, values in (("attacked", attacked), ("grey", grey)):
        save_npz(
            arguments.output / f"{name}.npz",
            {"images": values.astype(np.float32), "labels": labels},
            arguments.force,
        )
    print(f"{arguments.output}: attacked.npz, grey.npz")


if __name__ == "__main__":
    main()
