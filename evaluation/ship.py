"""Make the bundle of a model that ships, from trained weights: `make emoji` and `make mnist` in a checkout.

    python -m bcm_edge.evaluation.ship mnist trained.safetensors --data mnist_train.npz -o build/mnist

    export → search the levels → write them into the weights → export

The weights are those of `bcm-edge train`, with the classes of the data. The levels are chosen on a fifth of
the training images; results are reported on others.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from ..export.exporter import ExportPlan, export
from ..model.checkpoint import load_checkpoint, save_checkpoint
from ..runtime.storage.bundle import open_bundle
from ..runtime.storage.rewriting import update_manifest
from .adopt import adopt
from .classifier import train_classifier
from .data import held_out
from .quality import Judge
from .search import search_levels
from .shipped import print_progress

NETWORK_CALLS = (1, 2, 3)  # schedules with these numbers of calls are searched
SAMPLES, RECONSTRUCTED = 1000, 200  # at most this many images are generated, and inverted, for each schedule

Report = Callable[[str], None]  # gets one line of progress


def make_bundle(name: str, weights: Path, data: Path, folder: Path, report: Report) -> Path:
    """Choose the levels of the schedules of a model, and export it.

    name: of the model. weights: a checkpoint; it is not changed. data: an npz file with the images that the
    model was trained on. Files of an earlier run in the folder are replaced.

    Returns the bundle, which has the form of those in the package. Raises CheckpointError for weights that
    are not those of a BCM, and the errors of `held_out` and `export`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint, bundle = folder / f"{name}.safetensors", folder / f"{name}.bundle"
    trained = load_checkpoint(weights)
    trained.require("bcm")
    train, held = held_out(str(data), trained.facts, "validation")
    save_checkpoint(
        checkpoint,
        trained.state_dict,
        trained.config,
        trained.schedules,
        trained.provenance,
        classes=trained.classes,
    )
    _export(checkpoint, bundle, report)
    numbers = min(len(train), SAMPLES), min(len(held), RECONSTRUCTED)
    judge = Judge(train_classifier(train), train, held, None, *numbers)
    choose_schedules(bundle, judge, held.name, report)
    adopt(bundle, checkpoint)
    _export(checkpoint, bundle, report)
    return bundle


def choose_schedules(path: Path, judge: Judge, source: str, report: Report) -> None:
    """Write the best schedules of up to three calls, and one of four, into the manifest of a bundle.

    source: the name of the judge's held-out images.
    """
    search_levels(path, NETWORK_CALLS, judge, source, report)
    bundle = open_bundle(path)
    four = {"mixture-4": mixture(bundle.manifest.schedules)}
    update_manifest(bundle, lambda manifest: replace(manifest, schedules=manifest.schedules | four))


def mixture(schedules: Mapping[str, str]) -> str:
    """Return the schedule of four calls: that of two calls, then the second round of that of three.

    Its levels are not searched, because that takes as long as all others together.
    """
    first, second = schedules["ancestral-2"], schedules["zigzag-3"].partition(" ")[2]
    return f"{first} {second}"


def _export(checkpoint: Path, bundle: Path, report: Report) -> None:
    loaded = load_checkpoint(checkpoint)
    plan = ExportPlan(loaded, bundle, force=True, verify="full", copy_checkpoint=True)
    export(plan, loaded.sha256(), report)


def main() -> None:
    """Make the bundle."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("name", help="the name of the model: emoji, mnist")
    parser.add_argument("weights", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="the training images, an npz file")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder; its files are replaced")
    arguments = parser.parse_args()
    make_bundle(arguments.name, arguments.weights, arguments.data, arguments.output, print_progress)


if __name__ == "__main__":
    main()
