"""The measurements and the page of `evaluate`, with the facts at the top of the page."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from .. import __version__
from ..runtime.checks.benchmark import QUIET
from ..runtime.machine.environment import versions
from ..runtime.machine.load import OtherProcesses
from ..runtime.machine.processor import cpu_model
from ..runtime.storage.manifest import ModelFacts
from .console import progress

if TYPE_CHECKING:
    from ..evaluation.comparison import Latency
    from ..evaluation.exhibits import Exhibit
    from ..evaluation.rivals import Rivals
    from ..model.checkpoint import Checkpoint
    from ..training.dataset import Dataset

Facts = dict[str, dict[str, str]]  # heading → name of a fact → the fact


def described_images(shape: tuple[int, int, int], num_classes: int | None) -> str:
    """Return shape and classes of a model's images in words, such as "1×8×8, 10 classes"."""
    return f"{'×'.join(map(str, shape))}, {num_classes or 'no'} classes"


def model_line(model: ModelFacts) -> str:
    """Return a model in one line, by which an evaluation is recognised as one of this model."""
    images = described_images(model.sample_shape, model.num_classes)
    return f"{model.name}: {images}, {model.parameters:,} parameters"


def facts_of(rivals: Rivals, train: Dataset, real: Dataset, rival: Checkpoint | None, command: str) -> Facts:
    """Return what was measured, on which data, and how: the facts at the top of the page.

    train: the training images. real: the held-out images. rival: the baseline. command: the command line.
    """
    facts = {"Bundle": _bundle_facts(rivals)}
    if rival:
        facts["Baseline"] = {"file": rival.name, "provenance": provenance_line(rival.provenance)}
    facts["Data"] = _data_facts(rivals, train, real)
    facts["Made by"] = {
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "versions": _versions(),
        "command": command,
    }
    return facts


def _bundle_facts(rivals: Rivals) -> dict[str, str]:
    bundle, backend = rivals.bcm.bundle, rivals.bcm.backend
    return {
        "model": model_line(bundle.manifest.model),
        "played": f"in {backend.precision} on {backend.name}: {backend.device}",
        "processor": cpu_model(),
        "graphs": ", ".join(bundle.precisions),
        "checkpoint": provenance_line(bundle.manifest.provenance.get("checkpoint", {})),
    }


def _data_facts(rivals: Rivals, train: Dataset, real: Dataset) -> dict[str, str]:
    judge = rivals.judge
    facts = {
        "training images": f"{len(train)} of {train.name}",
        "held-out images": f"{len(real)} of {real.name}",
        "generated": f"{judge.samples} images",
        "inverted": f"{len(judge.originals)} held-out images",
        "features": judge.extractor.name,
        "Fréchet distance of training images": f"{judge.floor:.4g}, the unit of the ratio",
    }
    if judge.classifier is not None and judge.labels is not None:
        facts["classifier"] = f"{judge.accuracy:.1%} right on the held-out images"
    return facts


def provenance_line(values: dict[str, Any]) -> str:
    """Return what is recorded about the origin of a checkpoint, without the configuration of its network."""
    shown = [
        f"{name.replace('_', ' ')} {value}"
        for name, value in values.items()
        if value is not None and not isinstance(value, dict)
    ]
    return ", ".join(shown) or "not recorded"


def measured_page(rivals: Rivals, facts: Facts, title: str, caveat: str) -> tuple[dict[str, Any], str]:
    """Measure everything; return all numbers for --json, and the HTML page that shows them.

    caveat: of the comparisons with the baseline. A caution is added to `facts` if other processes disturbed
    the measurement of latencies.
    """
    from ..evaluation import comparison, comparison_pictures, report
    from ..evaluation.page import Page, Section, render
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
        lambda task: progress(f"tasks: {task}"),
    )
    times = _latencies(rivals, facts)
    nfe = {name: bcm.schedule(name).nfe for name in bcm.schedules}
    claims = report.claims(samples, inversions, caveat)
    plot, table = report.generation_exhibits(samples, judge.reference)
    exhibits: dict[str, list[Exhibit]] = {
        "Generation": [plot, table],
        "Inversion": [*report.inversion_exhibits(inversions)],
        "Pictures": [*galleries],
        "Tasks": list(tasks),
        "Latency beside quality": [report.latency_exhibit(times, samples, inversions, nfe)],
    }
    images = f"{judge.samples} generated and {len(judge.originals)} inverted images"
    page = Page(
        title,
        f"{facts['Bundle']['model']}; measured on {images}",
        claims,
        plot,
        comparison_pictures.best_samples(galleries[0], samples),
        facts,
        [Section(name, [one for one in shown if one is not plot]) for name, shown in exhibits.items()],
        [f"# {_versions()}", facts["Made by"]["command"]],
    )
    values = {
        "facts": facts,
        "claims": [{**asdict(claim), "answer": claim.answer} for claim in claims],
        "real": asdict(judge.reference),
        "floor": judge.floor,
        "generation": [
            {**asdict(sample), "ratio": sample.mean("ratio"), "spread": sample.spread} for sample in samples
        ],
        "inversion": [asdict(inversion) for inversion in inversions],
        "latency": [asdict(time) for time in times],
        "exhibits": {name: [report.values(one) for one in shown] for name, shown in exhibits.items()},
    }
    return values, render(page)


def _latencies(rivals: Rivals, facts: Facts) -> list[Latency]:
    """Measure the latencies. Adds a caution to `facts` if other processes disturbed the measurement."""
    from ..evaluation import comparison

    load = OtherProcesses()
    times = comparison.latencies(rivals)
    share = load.share()
    if share is not None and share > QUIET:
        caution = f"other processes took {share:.0%} of the processors while latencies were measured"
        facts["Made by"]["caution"] = caution
    return times


def _versions() -> str:
    installed = {"bcm-edge": __version__, **versions()}
    return ", ".join(f"{name} {version}" for name, version in installed.items() if version)
