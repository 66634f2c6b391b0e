"""Make the bundle of the emoji model from trained weights: `make emoji` in a checkout.

    python -m bcm_edge.evaluation.emoji emoji.safetensors --data emoji64.npz -o build/emoji

    split the data → export → search the levels → write them into the weights → export

The weights are those of `bcm-edge train`, with the classes of the data. The levels are chosen on training
drawings, because the held-out drawings are few, and are the ones that results are reported on.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ..errors import CheckpointError
from ..export.exporter import ExportPlan, export
from ..model.checkpoint import load_checkpoint, save_checkpoint
from ..runtime.storage.bundle import open_bundle
from ..runtime.storage.rewriting import update_manifest
from .adopt import adopt
from .classifier import train_classifier
from .data import held_out
from .emoji_data import CATEGORY, write_drawings
from .quality import Judge
from .search import rank_schedules, save_best, search_facts

CLASSES = ("fluent", "noto", "twemoji")
NETWORK_CALLS = (1, 2, 3)  # schedules with these numbers of calls are searched

Report = Callable[[str], None]  # gets one line of progress


def make_bundle(
    weights: Path, drawings: Path, folder: Path, report: Report, categories: Sequence[str] = (CATEGORY,)
) -> Path:
    """Split the drawings, choose the levels of the model's schedules, and export it.

    weights: a checkpoint with the classes CLASSES; it is not changed. drawings: emoji64.npz.
    categories: of the drawings that the model was trained on. Files of an earlier run in the folder are
    replaced. Returns the bundle, which has the form of those in the package.

    Raises CheckpointError for other classes, and the errors of `read_drawings` and `export`.
    """
    train_file, _ = write_drawings(drawings, folder, categories)
    checkpoint, bundle = folder / "emoji.safetensors", folder / "emoji.bundle"
    trained = load_checkpoint(weights)
    if trained.classes != CLASSES:
        raise CheckpointError(f"{weights}: its classes are not {', '.join(CLASSES)}")
    save_checkpoint(
        checkpoint,
        trained.state_dict,
        trained.config,
        trained.schedules,
        trained.provenance,
        classes=CLASSES,
    )
    _export(checkpoint, bundle, report)
    choose_schedules(bundle, train_file, report)
    adopt(bundle, checkpoint)
    _export(checkpoint, bundle, report)
    return bundle


def choose_schedules(path: Path, train_file: Path, report: Report) -> None:
    """Write the best schedules of up to three calls, and one of four, into the manifest of a bundle."""
    bundle = open_bundle(path)
    train, held = held_out(str(train_file), bundle.manifest.model, "validation")
    judge = Judge(train_classifier(train), train, held)
    for nfe in NETWORK_CALLS:
        schedules, _ = save_best(
            bundle, rank_schedules(bundle, nfe, judge, report), search_facts(judge, held.name)
        )
        report(f"best with {nfe}: {schedules}")
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
    parser.add_argument("weights", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="emoji64.npz")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder; its files are replaced")
    parser.add_argument("--category", action="append", help=f"may be repeated (default: {CATEGORY!r})")
    arguments = parser.parse_args()
    categories = arguments.category or (CATEGORY,)

    def print_progress(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    make_bundle(arguments.weights, arguments.data, arguments.output, print_progress, categories)


if __name__ == "__main__":
    main()
