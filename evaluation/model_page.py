"""The page docs/model.md: training, samples and reconstructions of the digits model that ships."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..model.checkpoint import Checkpoint
from ..runtime.schedule import ONE_STEP_BACK
from ..training.data import SPLIT_SEED
from .comparison import SETS, Inverted, Sampled, inverted, sampled
from .quality import Judge
from .rivals import Rivals

Quality = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Cost:
    """The time and the machine of a training run. threads: the threads of torch."""

    wall_minutes: float
    processor_minutes: float
    threads: int


def model_page(checkpoint: Checkpoint, cost: Cost, rivals: Rivals) -> tuple[str, Quality]:
    """Measure a model of the digits on the judge's images; returns the page as Markdown, and the quality of
    its schedules for the manifest of its bundle."""
    named = {f"{name}{ONE_STEP_BACK}": name for name in rivals.bcm.schedules}
    samples = sampled(rivals)
    inversions = [inversion for inversion in inverted(rivals) if inversion.name in named]
    lines = [
        *_model(checkpoint),
        *_training(checkpoint, cost),
        *_generation(samples),
        *_inversion(inversions),
        *_protocol(rivals.judge),
    ]
    return "\n".join(lines) + "\n", _quality(samples, inversions, rivals.judge)


def _quality(samples: Sequence[Sampled], inversions: Sequence[Inverted], judge: Judge) -> Quality:
    """Return schedule → its figures in the tables of the page, rounded as there."""
    facts = {"data": "digits (test)", "images": len(judge.images)}
    generations: Quality = {
        sample.name: {"frechet_ratio": round(sample.mean("ratio"), 2), **facts, "samples": judge.samples}
        for sample in samples
    }
    return generations | {
        inversion.name.removesuffix(ONE_STEP_BACK): {"reconstruction_mse": round(inversion.mse, 4), **facts}
        for inversion in inversions
    }


def _model(checkpoint: Checkpoint) -> list[str]:
    config, parameters = checkpoint.config, checkpoint.facts.parameters
    channels = f"{config.model_channels} and {config.channel_mult[1] * config.model_channels}"
    size = f"{checkpoint.size / 1e6:.2f} MB (stored in float16, computed in float32)"
    return [
        "# The digits model",
        "",
        "*This page is written by `make model`.*",
        "",
        f"The model `{checkpoint.facts.name}` generates and inverts handwritten digits: greyscale",
        f"images of 8×8 pixels in {config.num_classes} classes, from scikit-learn's `load_digits`. It ships",
        "with the package as a [bundle](bundle.md#bundles-in-the-package), so that every command can be",
        "tried at once: `bcm-edge generate digits --label 3 -o three.png`.",
        "",
        f"- {parameters:,} parameters, {size}",
        f"- U-Net with {channels} channels, attention in the middle",
        "",
        "![ten samples of each class, one network call each](digits.png)",
        "",
    ]


def _training(checkpoint: Checkpoint, cost: Cost) -> list[str]:
    options = checkpoint.provenance
    return [
        "## Training",
        "",
        "| setting | value |",
        "|---|---|",
        f"| steps | {options['steps']} |",
        f"| batch size | {options['batch']} |",
        f"| learning rate | {options['learning_rate']} |",
        f"| intervals | up to {options['intervals']} |",
        f"| seed | {options['seed']} |",
        f"| duration | **{cost.wall_minutes:.1f} minutes** |",
        f"| CPU time | {cost.processor_minutes:.1f} minutes, {cost.threads} threads |",
        "",
        "The same seed, machine and torch version give the same weights.",
        "",
    ]


def _generation(samples: Sequence[Sampled]) -> list[str]:
    rows = [
        f"| {s.name} | `{s.program}` | {s.nfe} | {s.mean('ratio'):.2f} ± {s.spread:.2f} | {s.agreement:.1%} |"
        for s in samples
    ]
    head = [
        "| schedule | levels | network calls | Fréchet ratio | label agreement |",
        "|---|---|---|---|---|",
    ]
    return ["## Generation", "", *head, *rows, ""]


def _inversion(inversions: Sequence[Inverted]) -> list[str]:
    rows = []
    for inversion in inversions:
        name = inversion.name.removesuffix(ONE_STEP_BACK)
        levels = inversion.program.partition(" then ")[0]
        nfe = inversion.nfe - 1  # without the step back
        moments = f"{inversion.latent_mean:.2f} | {inversion.latent_std:.2f}"
        rows.append(f"| {name} | `{levels}` | {nfe} | {inversion.mse:.4f} | {moments} |")
    head = [
        "| schedule | levels | network calls | reconstruction MSE | latent mean | latent std |",
        "|---|---|---|---|---|---|",
    ]
    note = [
        "Latents are divided by 80. White noise would have mean 0, standard deviation 1 and no trace of the",
        "digit. It is not claimed that the latents are white noise.",
    ]
    return ["## Inversion and one-step reconstruction", "", *head, *rows, "", *note, ""]


def _protocol(judge: Judge) -> list[str]:
    train, test = judge.samples, len(judge.images)
    return [
        "## Evaluation protocol",
        "",
        f"- **Data.** The 1797 digits are split once, stratified, seed {SPLIT_SEED}: {train} for training,",
        f"  180 for the choice of schedules, {test} for the results.",
        "- **Levels.** The levels were chosen on the validation digits. The training recipe and the grids of",
        "  levels were chosen while test results were visible ([training recipe](recipe.md)). The results",
        "  are therefore slightly optimistic.",
        f"- **Fréchet ratio.** The distance of {train} generated digits (with the training labels) to the",
        f"  {test} test digits, divided by the distance of the {train} training digits to the test digits,",
        f"  which is {judge.floor:.2f}. Real digits have a ratio of 1. The table shows the mean ± its",
        f"  standard error over {SETS} sets of seeds.",
        "- **Features and labels.** They come from a small CNN that was trained on the training digits. It",
        f"  classifies {judge.accuracy:.1%} of the test digits correctly.",
        f"- **Reconstruction MSE.** In [0, 1], after rounding to uint8, over the {test} test digits with",
        "  their labels.",
        "- **Weights.** The averaged weights of the file, rounded to float16.",
        "- **Bias.** The classifier has seen the training digits. This may increase their distance to other",
        "  digits, which is the unit of the ratio.",
    ]
