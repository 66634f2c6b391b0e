"""bcm-edge evaluate: how good a bundle is, on one page."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from .. import __version__
from ..errors import CheckpointError, ImageError, LabelError
from ..runtime.checks.benchmark import QUIET
from ..runtime.loading import load
from ..runtime.machine.environment import versions
from ..runtime.machine.load import OtherProcesses
from ..runtime.machine.processor import cpu_model
from ..runtime.pipeline import BCM
from ..runtime.pixels import SIGNED, ValueRange
from ..runtime.storage.files import check_free, replacing
from ..runtime.wording import listed
from .console import (
    MOST_RECONSTRUCTED,
    MOST_SAMPLES,
    backend_option,
    bundle_argument,
    force_option,
    json_option,
    output_option,
    precision_option,
    progress,
    require_extra,
    result,
    value_range_option,
)
from .paths import PATH, PATH_OR_NAME

if TYPE_CHECKING:
    from ..evaluation.exhibits import Exhibit
    from ..evaluation.quality import Judge
    from ..evaluation.rivals import Rivals
    from ..model.checkpoint import Checkpoint
    from ..training.dataset import Dataset

DATA_HELP = "What the model learnt: digits, a FOLDER of images (sub-folders are classes), or an npz with images [, labels, classes]."


@click.command(
    short_help="How good a bundle is, on one page.",
    epilog="Example:  bcm-edge evaluate digits.bundle --data digits --baseline digits_edm.safetensors -o report.html",
)
@bundle_argument
@click.option("--data", required=True, metavar="DATA", type=PATH_OR_NAME, help=DATA_HELP)
@click.option(
    "--test",
    metavar="DATA",
    type=PATH_OR_NAME,
    help="Held-out images: a folder or an npz (default: a fifth of the data, which the model may have learnt; of digits, the test part).",
)
@output_option("The HTML page to write; it needs nothing beside it.", "file")
@click.option("--baseline", type=PATH, help="An EDM denoiser to compare with, made by train --objective edm.")
@click.option(
    "--inception",
    type=PATH,
    help="Weights of FID's Inception network, for features (default: a small classifier).",
)
@click.option(
    "--samples",
    type=click.IntRange(4),
    help=f"Generated images (default: as many as train, at most {MOST_SAMPLES}).",
)
@click.option(
    "--reconstructed",
    type=click.IntRange(2),
    help=f"Held-out images inverted (default: all, at most {MOST_RECONSTRUCTED}).",
)
@value_range_option
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="First seed of all noise.")
@backend_option
@precision_option
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
    force: bool,
    as_json: bool,
) -> None:
    """Measure generation, inversion, tasks and latency, hold them against the baseline's and the paper's claims; write one HTML page."""
    require_extra("evaluate")
    check_free(output, force)  # before an hour of measuring
    from ..evaluation.data import held_out
    from ..evaluation.rivals import Rivals

    with load(bundle, backend, precision=precision, value_range=SIGNED) as bcm:
        if bcm.sample_shape[0] not in (1, 3):
            raise ImageError(
                f"this model's images have {bcm.sample_shape[0]} channels; a page shows pictures of 1 or 3"
            )
        rival = _baseline(baseline, bcm) if baseline else None
        train, real = held_out(data, bcm.bundle.manifest.model, "test", test, value_range)
        for note in dict.fromkeys((*train.notes, *real.notes)):
            progress(f"note: {note}")
        judge = _judge(train, real, inception, samples, reconstructed)
        rivals = Rivals(bcm, judge, rival.denoiser() if rival else None, seed, progress)
        facts = _facts(rivals, train, real, rival, _command(ctx))
        learnt = "" if test is not None else _learnt(data, rivals, rival, value_range)
        for heading, caution in (("Data", learnt), ("Baseline", _unequal(bcm, rival) if rival else "")):
            if caution:
                progress(f"caution: {caution}")
                facts[heading]["caution"] = caution
        values, text = _measured(rivals, facts, f"{bundle.name}: how good it is")
    with replacing(output, force) as partial:
        partial.write_text(text, encoding="utf-8")
    said = "\n".join(
        f"{claim['verdict']}: {claim['title']}\n  {claim['sentences'][0]}" for claim in values["claims"]
    )
    result(as_json, {"report": str(output), **values}, f"{said}\n\nlook at: {output}")


def _baseline(path: Path, bcm: BCM) -> Checkpoint:
    """Raises CheckpointError for what is no denoiser of the bundle's images."""
    from ..model.checkpoint import load_checkpoint

    checkpoint = load_checkpoint(path)
    checkpoint.require("edm")
    config = checkpoint.config
    given, wanted = (
        _images(config.sample_shape, config.num_classes),
        _images(bcm.sample_shape, bcm.num_classes),
    )
    if given != wanted:
        raise CheckpointError(f"{path}: denoises images of {given}; the bundle makes {wanted}")
    if checkpoint.classes and bcm.classes and checkpoint.classes != bcm.classes:
        names = f"{listed(checkpoint.classes)}; those of the bundle are {listed(bcm.classes)}"
        raise CheckpointError(f"{path}: its classes are {names}, so that equal labels mean different classes")
    return checkpoint


def _learnt(data: str, rivals: Rivals, rival: Checkpoint | None, value_range: ValueRange) -> str:
    """What to say where the held-out part was learnt; "" where it was not, or nobody can tell."""
    from ..evaluation.data import trained_on_all

    manifest = rivals.bcm.bundle.manifest
    told = {
        "the model": manifest.provenance.get("checkpoint", {}),
        **({"the baseline": rival.provenance} if rival else {}),
    }
    if learnt := trained_on_all(data, manifest.model, told, value_range):
        return f"{' and '.join(learnt)} learnt all of {data}, so the held-out images are not new to it; --test gives others"
    return ""


def _unequal(bcm: BCM, rival: Checkpoint) -> str:
    """What to say where the two were not trained alike; "" where they were, or nobody can tell."""
    ours, theirs = bcm.bundle.manifest.provenance.get("checkpoint", {}), rival.provenance
    apart = [
        name
        for name in ("steps", "batch", "data")
        if name in ours and name in theirs and ours[name] != theirs[name]
    ]
    told = [
        f"{ours[name]} {name} against {theirs[name]}" if name != "data" else "on other data" for name in apart
    ]
    return (
        f"the model and the baseline were not trained alike: {', '.join(told)}; the claims compare that, too"
        if told
        else ""
    )


def _images(shape: tuple[int, int, int], num_classes: int | None) -> str:
    return f"{'×'.join(map(str, shape))}, {num_classes or 'no'} classes"


def _judge(
    train: Dataset, real: Dataset, inception: Path | None, samples: int | None, reconstructed: int | None
) -> Judge:
    """Raises LabelError for data without labels where no Inception network gives the features."""
    from ..evaluation.classifier import train_classifier
    from ..evaluation.extractors import open_inception
    from ..evaluation.quality import Judge

    extractor = open_inception(inception) if inception else None
    if train.labels is None and extractor is None:
        raise LabelError(
            f"{train.name}: has no labels, so no classifier can be fitted to it whose features images are compared by; give the Inception "
            "network's with --inception WEIGHTS, or labels: an npz with `labels`, or one folder per class"
        )
    classes = train.num_classes or 0
    if extractor is None and sum(count > 0 for count in train.counts()) < 2:
        raise LabelError(
            f"{train.name}: has one class, which no classifier can tell from others; give features with --inception WEIGHTS"
        )
    if real.labels is not None and train.labels is not None and int(real.labels.max()) >= classes:
        raise LabelError(
            f"{real.name}: has a label {int(real.labels.max())} that no image of {train.name} has"
        )
    progress(f"judge: fitted to {len(train)} images; measured against {len(real)} others")
    classifier = None if train.labels is None else train_classifier(train)
    samples, reconstructed = (
        samples or min(len(train), MOST_SAMPLES),
        reconstructed or min(len(real), MOST_RECONSTRUCTED),
    )
    return Judge(classifier, train, real, extractor, samples, reconstructed)


def _measured(rivals: Rivals, facts: dict[str, dict[str, str]], title: str) -> tuple[dict[str, Any], str]:
    """All numbers, and the page that shows them."""
    from ..evaluation import comparison, comparison_pictures, report
    from ..evaluation.report import Page, Section
    from ..evaluation.tasks import task_exhibits

    bcm, judge = rivals.bcm, rivals.judge
    samples, inversions = comparison.sampled(rivals), comparison.inverted(rivals)
    progress("pictures: samples and reconstructions")
    galleries = [
        comparison_pictures.sample_gallery(rivals),
        comparison_pictures.reconstruction_gallery(rivals),
    ]
    tasks = task_exhibits(
        bcm,
        judge,
        judge.originals,
        judge.original_labels,
        rivals.seed,
        lambda what: progress(f"tasks: {what}"),
    )
    watch = OtherProcesses()
    times = comparison.latencies(rivals)
    others = watch.share()
    nfe = {name: bcm.schedule(name).nfe for name in bcm.schedules}
    claims = report.claims(samples, inversions)
    exhibits: dict[str, list[Exhibit]] = {
        "Generation": report.generation_exhibits(samples, judge.reference),
        "Inversion": report.inversion_exhibits(inversions),
        "Pictures": [*galleries],
        "Tasks": list(tasks),
        "Latency beside quality": [report.latency_exhibit(times, samples, inversions, nfe)],
    }
    if others is not None and others > QUIET:
        facts["Made by"]["caution"] = (
            f"other processes took {others:.0%} of the processors while latencies were measured"
        )
    page = Page(
        title,
        facts,
        claims,
        [Section(name, shown) for name, shown in exhibits.items()],
        [f"# {_versions()}", facts["Made by"]["command"]],
    )
    values = {
        "facts": facts,
        "claims": [asdict(claim) for claim in claims],
        "real": asdict(judge.reference),
        "floor": judge.floor,
    }
    values |= {"generation": [{**asdict(s), "ratio": s.mean("ratio"), "spread": s.spread} for s in samples]}
    values |= {"inversion": [asdict(i) for i in inversions], "latency": [asdict(t) for t in times]}
    values |= {"exhibits": {name: [report.values(e) for e in shown] for name, shown in exhibits.items()}}
    return values, report.render(page)


def _facts(
    rivals: Rivals, train: Dataset, real: Dataset, rival: Checkpoint | None, command: str
) -> dict[str, dict[str, str]]:
    bcm, judge = rivals.bcm, rivals.judge
    model, backend = bcm.bundle.manifest.model, bcm.backend
    bundle = {
        "model": f"{model.name}: {_images(model.sample_shape, model.num_classes)}, {model.parameters:,} parameters"
    }
    bundle |= {
        "played": f"in {backend.precision} on {backend.name}: {backend.device}",
        "processor": cpu_model(),
    }
    bundle |= {"graphs": ", ".join(bcm.bundle.precisions)}
    bundle |= {"checkpoint": _provenance(bcm.bundle.manifest.provenance.get("checkpoint", {}))}
    data = {
        "training images": f"{len(train)} of {train.name}",
        "held-out images": f"{len(real)} of {real.name}",
    }
    data |= {"generated": f"{judge.samples} images", "inverted": f"{len(judge.originals)} held-out images"}
    data |= {
        "features": judge.extractor.name,
        "Fréchet distance of training images": f"{judge.floor:.4g}, the unit of the ratio",
    }
    if judge.classifier is not None and judge.labels is not None:
        data |= {"classifier": f"{judge.accuracy:.1%} right on the held-out images"}
    made = {
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "versions": _versions(),
        "command": command,
    }
    baseline = (
        {"Baseline": {"file": rival.name, "provenance": _provenance(rival.provenance)}} if rival else {}
    )
    return {"Bundle": bundle, **baseline, "Data": data, "Made by": made}


def _provenance(values: dict[str, Any]) -> str:
    """What is told of a checkpoint, for people; what the network looks like is for machines."""
    told = {
        name.replace("_", " "): value
        for name, value in values.items()
        if value is not None and not isinstance(value, dict)
    }
    return ", ".join(f"{name} {value}" for name, value in told.items()) or "not told"


def _command(ctx: click.Context) -> str:
    """The line that was typed: what the defaults gave is left out."""
    words = ["bcm-edge", "evaluate"]
    for parameter in ctx.command.params:
        name = str(parameter.name)
        if ctx.get_parameter_source(name) is not ParameterSource.COMMANDLINE:
            continue
        if isinstance(parameter, click.Option):
            words.append(max(parameter.opts, key=len))
        if not (isinstance(parameter, click.Option) and parameter.is_flag):
            words.append(str(ctx.params[name]))
    return shlex.join(words)


def _versions() -> str:
    installed = {
        "bcm-edge": __version__,
        **{name: version for name, version in versions().items() if version},
    }
    return ", ".join(f"{name} {version}" for name, version in installed.items())
