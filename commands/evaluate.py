"""bcm-edge evaluate: the quality of a bundle, on one HTML page."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from ..errors import CheckpointError, ImageError, LabelError
from ..runtime.checks.doctor import require_extra
from ..runtime.loading import load
from ..runtime.pipeline import BCM
from ..runtime.pixels import SIGNED, ValueRange
from ..runtime.storage.files import check_free, replacing
from ..runtime.wording import listed
from .console import note, progress, result
from .evaluate_page import described_images, facts_of, measured_page
from .options import (
    MOST_RECONSTRUCTED,
    MOST_SAMPLES,
    backend_option,
    bundle_argument,
    device_option,
    force_option,
    json_option,
    output_option,
    precision_option,
    threads_option,
    value_range_option,
)
from .paths import PATH, PATH_OR_NAME

if TYPE_CHECKING:
    from ..evaluation.quality import Judge
    from ..evaluation.rivals import Rivals
    from ..model.checkpoint import Checkpoint
    from ..training.dataset import Dataset


@click.command(
    short_help="Measure the quality of a bundle, on one HTML page.",
    epilog="Example:  bcm-edge evaluate digits --data digits -o report.html",
)
@bundle_argument
@click.option(
    "--data",
    required=True,
    metavar="DATA",
    type=PATH_OR_NAME,
    help="The images that the model was trained on: digits, a FOLDER of images (its sub-folders are "
    "classes), or an npz file with `images` and optionally `labels` and `classes`.",
)
@click.option(
    "--test",
    metavar="DATA",
    type=PATH_OR_NAME,
    help="Held-out images: a folder or an npz file (default: a fifth of DATA, on which the model may have "
    "been trained; for digits, their test part).",
)
@output_option("The HTML page to write. It needs no other file.", "file")
@click.option(
    "--baseline", type=PATH, help="An EDM denoiser to compare with, made by `train --objective edm`."
)
@click.option(
    "--inception",
    type=PATH,
    help="Weights of FID's Inception network, to extract features with (default: a small classifier that is "
    "trained on DATA).",
)
@click.option(
    "--samples",
    metavar="N",
    type=click.IntRange(4),
    help=f"Number of images to generate (default: as many as training images, at most {MOST_SAMPLES}).",
)
@click.option(
    "--reconstructed",
    metavar="N",
    type=click.IntRange(2),
    help=f"Number of held-out images to invert (default: all, at most {MOST_RECONSTRUCTED}).",
)
@value_range_option
@click.option(
    "--seed",
    metavar="N",
    default=0,
    show_default=True,
    type=click.IntRange(0),
    help="Seed of the first image.",
)
@backend_option
@precision_option
@threads_option
@device_option
@force_option
@json_option
@click.pass_context
def evaluate(
    ctx: click.Context,
    bundle: Path,
    data: str,
    test: str | None,
    output: Path,
    baseline: Path | None,
    inception: Path | None,
    samples: int | None,
    reconstructed: int | None,
    value_range: ValueRange,
    seed: int,
    backend: str,
    precision: str | None,
    threads: int | None,
    device: str | None,
    force: bool,
    as_json: bool,
) -> None:
    """Measure the quality of BUNDLE, and write an HTML page.

    The page shows generation, inversion, tasks and latency, compares them with a baseline, and checks the
    claims of the paper.
    """
    require_extra("evaluate")
    check_free(output, force)  # before the measurement, which may take an hour
    from ..evaluation.data import held_out
    from ..evaluation.rivals import Rivals

    with load(
        bundle, backend, precision=precision, value_range=SIGNED, threads=threads, device=device
    ) as bcm:
        _check_channels(bundle, bcm)
        rival = _baseline(baseline, bcm) if baseline else None
        train, real = held_out(data, bcm.bundle.manifest.model, "test", test, value_range)
        for line in dict.fromkeys((*train.notes, *real.notes)):
            note(line)
        judge = _judge(train, real, inception, samples, reconstructed)
        rivals = Rivals(bcm, judge, rival.denoiser() if rival else None, seed, progress)
        facts = facts_of(rivals, train, real, rival, _command(ctx))
        if test is None:
            _add_caution(facts["Data"], _trained_on(data, rivals, rival, value_range))
        if rival:
            _add_caution(facts["Baseline"], _unequal_training(bcm, rival))
        caveat = _unequal_computation(bcm, rival) if rival else ""
        values, page = measured_page(rivals, facts, f"{bundle.name}: quality", caveat)
    with replacing(output, force) as partial:
        partial.write_text(page, encoding="utf-8")
    text = "\n".join(
        f"{claim['answer']}: {claim['title']}\n  {claim['sentences'][0]}" for claim in values["claims"]
    )
    caveat = f"\ncaveat: {caveat}" if caveat else ""
    result(as_json, {"report": str(output), **values}, f"{text}{caveat}\n\nthe report is in {output}")


def _check_channels(bundle: Path, bcm: BCM) -> None:
    """Raise ImageError unless the images of the model are grey or coloured."""
    channels = bcm.sample_shape[0]
    if channels not in (1, 3):
        raise ImageError(
            f"{bundle}: evaluate needs a model of grey or colour images (1 or 3 channels); "
            f"this one has {channels}"
        )


def _baseline(path: Path, bcm: BCM) -> Checkpoint:
    """Return the baseline. Raises CheckpointError if its images or classes are not those of the bundle."""
    from ..model.checkpoint import load_checkpoint

    checkpoint = load_checkpoint(path)
    checkpoint.require("edm")
    config = checkpoint.config
    own = described_images(config.sample_shape, config.num_classes)
    expected = described_images(bcm.sample_shape, bcm.num_classes)
    if own != expected:
        raise CheckpointError(
            f"{path}: the baseline makes images of {own}, the bundle of {expected}; give a denoiser that was "
            "trained on the same data"
        )
    if checkpoint.classes and bcm.classes and checkpoint.classes != bcm.classes:
        raise CheckpointError(
            f"{path}: the classes of the baseline are {listed(checkpoint.classes)}, those of the bundle are "
            f"{listed(bcm.classes)}; give a denoiser that was trained on the same data"
        )
    return checkpoint


def _judge(
    train: Dataset, real: Dataset, inception: Path | None, samples: int | None, reconstructed: int | None
) -> Judge:
    """Return the judge of a model. Raises LabelError for data that no classifier can be trained on."""
    from ..evaluation.classifier import train_classifier
    from ..evaluation.extractors import open_inception
    from ..evaluation.quality import Judge

    extractor = open_inception(inception) if inception else None
    if extractor is None:
        _check_classes(train)
    if train.labels is not None and real.labels is not None:
        largest = int(real.labels.max())
        if largest >= (train.num_classes or 0):
            raise LabelError(
                f"{real.name}: label {largest} does not occur in {train.name}; remove its images, or number "
                "the classes alike"
            )
    progress(f"judge: fitted to {len(train)} images; {len(real)} others to measure against")
    classifier = None if train.labels is None else train_classifier(train)
    samples = samples or min(len(train), MOST_SAMPLES)
    reconstructed = reconstructed or min(len(real), MOST_RECONSTRUCTED)
    return Judge(classifier, train, real, extractor, samples, reconstructed)


def _check_classes(train: Dataset) -> None:
    """Raise LabelError unless the images have labels of two classes, which a classifier needs."""
    if train.labels is None:
        raise LabelError(
            f"{train.name}: has no labels, which are needed to train the classifier that extracts features; "
            "add labels (an npz file with `labels`, or one folder per class), or give --inception WEIGHTS"
        )
    if sum(count > 0 for count in train.counts()) < 2:
        raise LabelError(
            f"{train.name}: has only one class, and the classifier that extracts features needs two; give "
            "--inception WEIGHTS"
        )


def _add_caution(facts: dict[str, str], caution: str) -> None:
    """Print a caution, and add it to facts of the page. Does nothing for ""."""
    if caution:
        progress(f"caution: {caution}")
        facts["caution"] = caution


def _trained_on(data: str, rivals: Rivals, rival: Checkpoint | None, value_range: ValueRange) -> str:
    """Return a caution if the held-out images were trained on; "" if not, or if it is not recorded."""
    from ..evaluation.data import trained_on_all

    manifest = rivals.bcm.bundle.manifest
    provenance = {"the model": manifest.provenance.get("checkpoint", {})}
    if rival:
        provenance["the baseline"] = rival.provenance
    trained = trained_on_all(data, manifest.model, provenance, value_range)
    if not trained:
        return ""
    verb = "were" if len(trained) > 1 else "was"
    return (
        f"{' and '.join(trained)} {verb} trained on {data}, the held-out images included; give others with "
        "--test"
    )


def _unequal_training(bcm: BCM, rival: Checkpoint) -> str:
    """Return a caution if both were trained differently; "" if not, or if it is not recorded."""
    ours, theirs = bcm.bundle.manifest.provenance.get("checkpoint", {}), rival.provenance
    differences = []
    for name in ("steps", "batch", "data"):
        if name in ours and name in theirs and ours[name] != theirs[name]:
            values = f"{ours[name]} {name} against {theirs[name]}"
            differences.append("on other data" if name == "data" else values)
    if not differences:
        return ""
    return (
        f"the model and the baseline were trained differently: {', '.join(differences)}; "
        "the claims compare this difference as well"
    )


def _unequal_computation(bcm: BCM, rival: Checkpoint) -> str:
    """Return a caveat if training both took unequal computation; "" if not, or if it is not recorded."""
    from ..evaluation.claims import computation_caveat
    from ..training.objective import EVALUATIONS

    ours, theirs = bcm.bundle.manifest.provenance.get("checkpoint", {}), rival.provenance
    if any(values.get(name) is None for values in (ours, theirs) for name in ("steps", "batch")):
        return ""
    images = ours["steps"] * ours["batch"] * EVALUATIONS, theirs["steps"] * theirs["batch"]
    return computation_caveat(*images, initialised=bool(ours.get("init")))


def _command(ctx: click.Context) -> str:
    """Return the command line as it was typed, without options that have their defaults."""
    words = ["bcm-edge", "evaluate"]
    for parameter in ctx.command.params:
        name = str(parameter.name)
        typed = ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE
        if not typed or name not in ctx.params:  # -v, -q and --log-file do not change the page
            continue
        if isinstance(parameter, click.Option):
            words.append(max(parameter.opts, key=len))
        if not (isinstance(parameter, click.Option) and parameter.is_flag):
            words.append(str(ctx.params[name]))
    return shlex.join(words)
