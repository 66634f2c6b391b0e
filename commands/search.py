"""bcm-edge calibrate --search-schedule: the levels of a bundle's schedules, by what they make of given data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..runtime.loading import load
from ..runtime.pixels import ValueRange
from ..runtime.storage.bundle import Bundle
from ..runtime.storage.files import replacing
from ..runtime.storage.rewriting import update_manifest
from .console import MOST_RECONSTRUCTED, MOST_SAMPLES, progress, require_extra, result, table

if TYPE_CHECKING:
    from ..calibration.levels import Scored
    from ..evaluation.quality import Judge

SEED = 1_000_000  # first seed of the samples that schedules are scored on
SHOWN = 5  # rows per family
LEGIBLE = 8  # lines of a panel that have names

Rankings = dict[str, "list[Scored]"]  # family → its schedules, the best first


def search(
    bundle: Bundle,
    nfe: int,
    data: str,
    value_range: ValueRange,
    picture: Path | None,
    force: bool,
    as_json: bool,
) -> None:
    """Score every schedule of nfe network calls; put the best, with its score, into the manifest under its family's name."""
    require_extra("train")
    judge, source = _judge(data, bundle, value_range)
    rankings = _rankings(bundle, nfe, judge)
    facts = {"data": source, "images": len(judge.images), "samples": judge.samples, "seed": SEED}
    best = {name: ranking[0] for name, ranking in rankings.items()}
    schedules = {name: str(scored.schedule) for name, scored in best.items()}
    quality = {name: {_measure(scored): scored.score, **facts} for name, scored in best.items()}
    update_manifest(
        bundle, lambda m: replace(m, schedules=m.schedules | schedules, quality=m.quality | quality)
    )
    if picture:
        with replacing(picture, force) as partial:
            _save_picture(rankings, partial)
    rows = [
        (name, s.schedule, f"{s.score:.5g}", _measure(s))
        for name, ranking in rankings.items()
        for s in ranking[:SHOWN]
    ]
    text = f"{table(('family', 'schedule', 'score', 'measure'), rows)}\n\nthe best of each family is now {bundle.path}'s"
    result(as_json, {"bundle": str(bundle.path), "schedules": schedules, "quality": quality}, text)


def _rankings(bundle: Bundle, nfe: int, judge: Judge) -> Rankings:
    from ..calibration.levels import GENERATION, INVERSION, ranked

    families = {name: family for name, family in {**GENERATION, **INVERSION}.items() if family.nfe == nfe}
    found: Rankings = {}
    with load(bundle.path, precision="fp32") as bcm:
        for name, family in families.items():
            progress(f"{name}: {len(family.levels)} schedules {family.template}")
            found[name] = ranked(
                family,
                lambda schedule: judge.score(schedule, bcm.backend, SEED),
                _counter(len(family.levels)),
            )
    return found


def _counter(total: int) -> Callable[[Scored], None]:
    numbers = iter(range(1, total + 1))
    return lambda scored: progress(f"  {next(numbers)}/{total}  {scored.score:.5g}  {scored.schedule}")


def _measure(scored: Scored) -> str:
    return "reconstruction_mse" if scored.schedule.from_image else "frechet_ratio"


def _judge(data: str, bundle: Bundle, value_range: ValueRange) -> tuple[Judge, str]:
    """A classifier fitted to most of the data; schedules are measured against the rest, of digits against their validation part."""
    from ..evaluation.classifier import train_classifier
    from ..evaluation.data import held_out
    from ..evaluation.quality import Judge

    train, real = held_out(data, bundle.manifest.model, "validation", value_range=value_range)
    for note in dict.fromkeys((*train.notes, *real.notes)):
        progress(f"note: {note}")
    progress(
        f"judge: a classifier fitted to {len(train)} images; schedules are measured against {len(real)} others"
    )
    samples, reconstructed = min(len(train), MOST_SAMPLES), min(len(real), MOST_RECONSTRUCTED)
    return Judge(
        train_classifier(train), train, real, samples=samples, reconstructed=reconstructed
    ), real.name


def _save_picture(rankings: Rankings, path: Path) -> None:
    """One panel per family: score against the last level that is chosen, a line for each choice of the others, the best marked; a PNG."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(
        1, len(rankings), figsize=(5.5 * len(rankings), 4), squeeze=False, layout="constrained"
    )
    for panel, (name, ranking) in zip(axes[0], rankings.items(), strict=True):
        lines: dict[tuple[float, ...], list[Scored]] = {}
        for scored in sorted(ranking, key=lambda s: s.levels):
            lines.setdefault(scored.levels[:-1], []).append(scored)
        for others, members in lines.items():
            label = ", ".join(f"{level:g}" for level in others) if 1 < len(lines) <= LEGIBLE else None
            panel.plot(
                [s.levels[-1] for s in members], [s.score for s in members], ".-", linewidth=0.8, label=label
            )
        best = ranking[0]
        panel.plot(
            best.levels[-1],
            best.score,
            "o",
            markersize=10,
            markerfacecolor="none",
            color="tab:red",
            label=f"best: {best.schedule}",
        )
        panel.set(
            xscale="log", title=name, xlabel="last level chosen", ylabel=_measure(best).replace("_", " ")
        )
        panel.legend(fontsize="small")
    figure.savefig(path, format="png", dpi=150)
    plt.close(figure)
