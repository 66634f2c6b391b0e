"""Makes the model that ships, from nothing: `python -m bcm_edge.evaluation.shipped` in a checkout.

Trains on the training digits, chooses schedules on the validation digits, writes model/digits.safetensors,
loads the file as a user does, and measures it on the test digits. The results are written to docs/model.md.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import torch

from ..calibration.levels import Scored, best_schedule
from ..model.checkpoint import Checkpoint, load_checkpoint, save_checkpoint, shipped_checkpoint
from ..model.player import TorchBackend
from ..model.preconditioning import ConsistencyModel
from ..runtime.pictures.writing import save_images
from ..runtime.schedule import ONE_STEP, Schedule, parse_schedule
from ..training.data import SPLIT_SEED, load_digits
from ..training.networks import network_for
from ..training.trainer import Progress, Trainer, TrainOptions, fit, sample_sheet
from .classifier import Classifier, train_classifier
from .quality import Generation, Inversion, Judge, measure_generation, measure_inversion

OPTIONS = TrainOptions(steps=3400, intervals=80)
THREADS = 2  # always, so that the weights do not depend on how many processors there are
PICK_SEED = 1_000_000  # first seed of the samples that schedules are picked on
TEST_SEEDS = (2_000_000, 3_000_000, 4_000_000, 5_000_000, 6_000_000)  # of the samples that are reported
MIDDLE_LEVELS = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.6, 0.8, 1.2, 2.0)
ZIGZAG_LEVELS = tuple(product((0.1, 0.15, 0.2, 0.3), (0.6, 0.8, 1.2, 1.8)))
MIXTURE_LEVELS = tuple(product((0.2, 0.3, 0.4, 0.6), (0.1, 0.15, 0.2, 0.3), (0.6, 0.8, 1.2)))
INVERSION_LEVELS = (0.5, 0.7, 1.0, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 5.0, 10.0)


@dataclass(frozen=True)
class Cost:
    """What training took: wall and processor minutes, and the threads torch used."""

    wall: float
    processor: float
    threads: int


def main() -> None:
    torch.set_num_threads(THREADS)
    root = Path(__file__).parents[1]
    classifier = train_classifier(load_digits("train"))
    path = shipped_checkpoint()
    trainer, cost = _train(path)
    schedules = pick_schedules(trainer.checkpoint().model(), classifier)
    provenance = {**trainer.provenance(), "processor_minutes": round(cost.processor, 1)}
    save_checkpoint(
        path, trainer.average, trainer.config, {n: str(s) for n, s in schedules.items()}, provenance
    )
    path.with_name(path.name + ".state").unlink()
    save_images(sample_sheet(trainer.checkpoint()), root / "docs" / "digits.png", force=True)
    report(path, classifier, cost, root / "docs" / "model.md")


def _train(path: Path) -> tuple[Trainer, Cost]:
    wall, processor = time.perf_counter(), time.process_time()
    digits = load_digits("train")
    trainer = fit(
        digits, network_for(digits, OPTIONS.channels), OPTIONS, path.with_name(path.name + ".state"), _print
    )
    return trainer, Cost(
        (time.perf_counter() - wall) / 60, (time.process_time() - processor) / 60, torch.get_num_threads()
    )


def _print(p: Progress) -> None:
    if p.step % 100 == 0:
        losses = "".join(f"{name} {value:.4f}  " for name, value in p.losses.items())
        print(
            f"step {p.step}/{p.steps}  {losses}{p.intervals} intervals  {p.seconds_left / 60:.1f} min left",
            file=sys.stderr,
            flush=True,
        )


def pick_schedules(model: ConsistencyModel, classifier: Classifier) -> dict[str, Schedule]:
    """The named schedules with the levels that do best on the validation digits."""
    judge, backend = Judge(classifier, load_digits("train"), load_digits("validation")), TorchBackend(model)

    def generation(template: str, levels: Sequence[tuple[float, ...]]) -> Scored:
        return best_schedule(template, levels, lambda s: judge.ratio(judge.generate(s, backend, PICK_SEED)))

    ancestral = generation("80>{0}>0.002", [(level,) for level in MIDDLE_LEVELS])
    zigzag = generation("80>0.002 +{0} {0}>{1}>0.002", ZIGZAG_LEVELS)
    mixture = generation("80>{0}>0.002 +{1} {1}>{2}>0.002", MIXTURE_LEVELS)
    invert = best_schedule(
        "+0.07 0.07>{0}>80",
        [(level,) for level in INVERSION_LEVELS],
        lambda s: judge.reconstruction_error(s, backend, PICK_SEED),
    )
    picked = {"ancestral-2": ancestral, "zigzag-3": zigzag, "mixture-4": mixture, "invert-2": invert}
    return {
        "one-step": ONE_STEP,
        "invert-1": parse_schedule("+0.07 0.07>80"),
        **{name: s.schedule for name, s in picked.items()},
    }


def report(path: Path, classifier: Classifier, cost: Cost, page: Path) -> None:
    """Measure the file on the test digits and write what came out."""
    checkpoint = load_checkpoint(path)
    judge, backend = (
        Judge(classifier, load_digits("train"), load_digits("test")),
        TorchBackend(checkpoint.model()),
    )
    generations, inversions = [], []
    for name, text in checkpoint.schedules.items():
        schedule = parse_schedule(text)
        if schedule.from_image:
            inversions.append(measure_inversion(judge, backend, name, schedule, TEST_SEEDS[0]))
        else:
            generations.append(measure_generation(judge, backend, name, schedule, TEST_SEEDS))
    lines = [
        *_model_lines(path, checkpoint),
        *_cost_lines(cost),
        *_generation_lines(generations),
        *_inversion_lines(inversions),
        *_protocol_lines(judge),
    ]
    page.parent.mkdir(exist_ok=True)
    page.write_text("\n".join(lines) + "\n")


def _model_lines(path: Path, checkpoint: Checkpoint) -> list[str]:
    parameters = sum(tensor.numel() for tensor in checkpoint.state_dict.values())
    megabytes = path.stat().st_size / 1e6
    config = checkpoint.config
    channels = config.model_channels
    return [
        "# The digits model",
        "",
        "*This page is written by `make model`.*",
        "",
        f"`model/{path.name}` generates and inverts handwritten digits: greyscale images of 8×8 pixels in",
        f"{config.num_classes} classes, from scikit-learn's `load_digits`. It ships with the package, so",
        "that every command can be tried at once and the tests have a trained network.",
        "",
        f"- {parameters:,} parameters, {megabytes:.2f} MB (stored in float16, computed in float32)",
        f"- U-Net with {channels} and {config.channel_mult[1] * channels} channels, attention in the middle",
        "",
        "![ten samples of each class, one network call each](digits.png)",
        "",
    ]


def _cost_lines(cost: Cost) -> list[str]:
    o = OPTIONS
    return [
        "## Training",
        "",
        "| setting | value |",
        "|---|---|",
        f"| steps | {o.steps} |",
        f"| batch size | {o.batch} |",
        f"| learning rate | {o.learning_rate} |",
        f"| intervals | up to {o.intervals} |",
        "| seed | 0 |",
        f"| duration | **{cost.wall:.1f} minutes** |",
        f"| CPU time | {cost.processor:.1f} minutes, {cost.threads} threads |",
        "",
        "The same seed, machine and torch version give the same weights.",
        "",
    ]


def _generation_lines(rows: Sequence[Generation]) -> list[str]:
    table = [
        f"| {r.name} | `{r.schedule}` | {r.schedule.nfe} "
        f"| {r.ratio:.2f} ± {r.spread:.2f} | {_percent(r.agreement)} |"
        for r in rows
    ]
    head = [
        "| schedule | levels | network calls | Fréchet ratio | label agreement |",
        "|---|---|---|---|---|",
    ]
    return ["## Generation", "", *head, *table, ""]


def _inversion_lines(rows: Sequence[Inversion]) -> list[str]:
    table = [
        f"| {r.name} | `{r.schedule}` | {r.schedule.nfe} "
        f"| {r.error:.4f} | {r.latent_mean:.2f} | {r.latent_std:.2f} |"
        for r in rows
    ]
    head = [
        "| schedule | levels | network calls | reconstruction MSE | latent mean | latent std |",
        "|---|---|---|---|---|---|",
    ]
    note = [
        "Latents are divided by 80. White noise would have mean 0, standard deviation 1 and no trace of the",
        "digit. It is not claimed that the latents are white noise.",
    ]
    return ["## Inversion and one-step reconstruction", "", *head, *table, "", *note, ""]


def _protocol_lines(judge: Judge) -> list[str]:
    n, m = judge.samples, len(judge.images)
    return [
        "## Evaluation protocol",
        "",
        f"- **Data.** The 1797 digits are split once, stratified, seed {SPLIT_SEED}: {n} for training,",
        f"  180 for the choice of schedules, {m} for the results.",
        "- **Levels.** The levels were chosen on the validation digits. The training recipe and the grids of",
        "  levels were chosen while test results were visible ([training recipe](recipe.md)). The results",
        "  are therefore slightly optimistic.",
        f"- **Fréchet ratio.** The distance of {n} generated digits (with the training labels) to the {m}",
        f"  test digits, divided by the distance of the {n} training digits to the test digits, which is",
        f"  {judge.floor:.2f}. Real digits have a ratio of 1. The table shows the mean ± standard deviation",
        f"  over {len(TEST_SEEDS)} sets of seeds.",
        "- **Features and labels.** They come from a small CNN that was trained on the training digits. It",
        f"  classifies {judge.accuracy:.1%} of the test digits correctly.",
        f"- **Reconstruction MSE.** In [0, 1], after rounding to uint8, over the {m} test digits with their",
        "  labels.",
        "- **Weights.** The averaged weights of the file, rounded to float16.",
        "- **Bias.** The classifier has seen the training digits. This may increase their distance to other",
        "  digits, which is the unit of the ratio.",
    ]


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.1%}"


if __name__ == "__main__":
    main()
