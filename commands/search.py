"""bcm-edge calibrate --search-schedule: the levels of a bundle's schedules, by what they make of given data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..runtime.pixels import ValueRange
from ..runtime.storage.bundle import Bundle
from ..runtime.storage.files import replacing
from .console import MOST_RECONSTRUCTED, MOST_SAMPLES, progress, require_extra, result, table

if TYPE_CHECKING:
    from ..calibration.levels import Scored
    from ..evaluation.quality import Judge
    from ..evaluation.search import Rankings

SHOWN = 5  # rows per family
LEGIBLE = 8  # lines of a panel that have names


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
    from ..evaluation.search import measure, rank_schedules, save_best, search_facts

    judge, source = _judge(data, bundle, value_range)
    rankings = rank_schedules(bundle, nfe, judge, progress)
    schedules, quality = save_best(bundle, rankings, search_facts(judge, source))
    if picture:
        with replacing(picture, force) as partial:
            _save_picture(rankings, partial)
    rows = [
        (name, s.schedule, f"{s.score:.5g}", measure(s))
        for name, ranking in rankings.items()
        for s in ranking[:SHOWN]
    ]
    text = f"{table(('family', 'schedule', 'score', 'measure'), rows)}\n\nthe best of each family is now {bundle.path}'s"
    result(as_json, {"bundle": str(bundle.path), "schedules": schedules, "quality": quality}, text)


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

    from ..evaluation.search import measure

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
            xscale="log", title=name, xlabel="last level chosen", ylabel=measure(best).replace("_", " ")
        )
        panel.legend(fontsize="small")
    figure.savefig(path, format="png", dpi=150)
    plt.close(figure)
