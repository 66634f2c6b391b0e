"""Make the digits model that ships with the package, from nothing: `make model` in a checkout.

    train → export → search → adopt → evaluate

The steps are those of `bcm-edge train`, `bcm-edge export`, `bcm-edge calibrate --search-schedule` and
`bcm-edge evaluate`, and take the same code: trained on the training digits, levels chosen on the validation
digits, measured on the test digits. The measurements become docs/model.md.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ..export import shipped as bundles
from ..export.exporter import ExportPlan, export
from ..model.checkpoint import load_checkpoint, save_checkpoint, shipped_checkpoint
from ..runtime.loading import load
from ..runtime.storage.bundle import open_bundle, read_manifest
from ..runtime.storage.manifest import MANIFEST
from ..runtime.storage.rewriting import update_manifest
from ..runtime.storage.shipped import shipped_bundle
from ..training.data import load_digits
from ..training.options import TrainOptions
from ..training.run import train
from ..training.watch import Progress
from .adopt import adopt
from .classifier import Classifier, train_classifier
from .data import held_out
from .model_page import Cost, model_page
from .quality import Judge
from .rivals import Rivals
from .search import search_levels

OPTIONS = TrainOptions(steps=3400, intervals=80)
THREADS = 2  # threads of torch; fixed, so that the weights do not depend on the number of processors
NETWORK_CALLS = (1, 2, 3, 4)  # schedules with these numbers of calls are searched
FIRST_SEED = 2_000_000  # seed of the first reported sample; the search scores other samples
PERIOD = 100  # training steps between two lines of progress

Report = Callable[[str], None]  # gets one line of progress


@dataclass(frozen=True)
class Files:
    """The files that `make_model` writes."""

    weights: Path
    samples: Path
    bundle: Path
    page: Path

    @classmethod
    def in_folder(cls, folder: Path) -> Files:
        """Return the files of a run that writes into this folder."""
        weights = folder / shipped_checkpoint().name
        return cls(weights, weights.with_suffix(".png"), weights.with_suffix(".bundle"), folder / "model.md")


def main() -> None:
    """Make the model in build/model, then replace its files in the package and in the documentation."""
    root = Path(__file__).parents[1]
    files = make_model(root / "build" / "model", OPTIONS, print_progress)
    shutil.copyfile(files.weights, shipped_checkpoint())
    shutil.copyfile(files.samples, root / "docs" / "digits.png")
    shutil.copyfile(files.page, root / "docs" / "model.md")
    bundles.main()
    manifest = read_manifest(shipped_bundle("digits"))
    manifest = replace(manifest, quality=open_bundle(files.bundle).manifest.quality)
    (shipped_bundle("digits") / MANIFEST).write_text(manifest.to_json())


def make_model(folder: Path, options: TrainOptions, report: Report) -> Files:
    """Train a model of the digits, choose its schedules, measure it, and write all of it into a folder.

    Files of an earlier run in the folder are replaced. Torch's number of threads is set to THREADS.
    """
    torch.set_num_threads(THREADS)
    folder.mkdir(parents=True, exist_ok=True)
    files = Files.in_folder(folder)
    cost = train_weights(files.weights, options, report)
    classifier = train_classifier(load_digits("train"))
    choose_schedules(files, classifier, report)
    write_page(files, classifier, cost, report)
    return files


def train_weights(weights: Path, options: TrainOptions, report: Report) -> Cost:
    """Train on the training digits; writes the weights, and a picture of samples beside them."""

    def show(progress: Progress) -> None:
        if progress.step % PERIOD == 0 or progress.step == progress.steps:
            report(progress_line(progress))

    wall, processor = time.perf_counter(), time.process_time()
    train("digits", weights, options, show, report=report, force=True, discard_state=True)
    cost = Cost(
        wall_minutes=(time.perf_counter() - wall) / 60,
        processor_minutes=(time.process_time() - processor) / 60,
        threads=torch.get_num_threads(),
    )
    trained = load_checkpoint(weights)
    provenance = {**trained.provenance, "processor_minutes": round(cost.processor_minutes, 1)}
    save_checkpoint(weights, trained.state_dict, trained.config, trained.schedules, provenance)
    return cost


def choose_schedules(files: Files, classifier: Classifier, report: Report) -> None:
    """Export the weights, search the levels on the validation digits, and write the best into the weights."""
    checkpoint = load_checkpoint(files.weights)
    export(ExportPlan(checkpoint, files.bundle, force=True), checkpoint.sha256(), report)
    train_part, validation = held_out("digits", checkpoint.facts, "validation")
    judge = Judge(classifier, train_part, validation)
    search_levels(files.bundle, NETWORK_CALLS, judge, validation.name, report)
    adopt(files.bundle, files.weights)


def write_page(files: Files, classifier: Classifier, cost: Cost, report: Report) -> None:
    """Measure the bundle on the test digits, and write the page about the model."""
    checkpoint = load_checkpoint(files.weights)
    train_part, test = held_out("digits", checkpoint.facts, "test")
    judge = Judge(classifier, train_part, test)
    with load(files.bundle, precision="fp32") as bcm:
        rivals = Rivals(bcm, judge, None, FIRST_SEED, report)
        page, quality = model_page(checkpoint, cost, rivals)
    files.page.write_text(page, encoding="utf-8")
    update_manifest(open_bundle(files.bundle), lambda manifest: replace(manifest, quality=quality))
    report(f"page: {files.page}")


def progress_line(progress: Progress) -> str:
    """Return one line about the progress of training."""
    losses = "".join(f"{name} {value:.4f}  " for name, value in progress.losses.items())
    left = "" if progress.seconds_left is None else f"{progress.seconds_left / 60:.1f} min left"
    return f"step {progress.step}/{progress.steps}  {losses}{progress.intervals} intervals  {left}"


def print_progress(line: str) -> None:
    """Print a line on standard error at once."""
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
