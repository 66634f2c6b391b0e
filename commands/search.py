"""bcm-edge calibrate --search-schedule: levels of a bundle's schedules, chosen by their scores on data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..runtime.checks.doctor import require_extra
from ..runtime.pixels import ValueRange
from ..runtime.storage.bundle import Bundle
from ..runtime.storage.files import replacing
from .console import note, progress, result
from .options import MOST_RECONSTRUCTED, MOST_SAMPLES
from .tables import table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ..calibration.levels import Scored
    from ..evaluation.quality import Judge
    from ..evaluation.search import Rankings

SHOWN = 5  # rows per family in the table
LEGIBLE = 8  # lines in a panel of the picture that are named in its legend


def search(
    bundle: Bundle,
    nfe: int,
    data: str,
    value_range: ValueRange,
    picture: Path | None,
    force: bool,
    as_json: bool,
) -> None:
    """Score the schedules of `nfe` network calls, and store the best of each family in the bundle."""
    require_extra("train")
    from ..evaluation.search import measure, rank_schedules, save_best

    judge, source = _judge(data, bundle, value_range)
    rankings = rank_schedules(bundle, nfe, judge, progress)
    schedules, quality = save_best(bundle, rankings, judge, source)
    if picture:
        with replacing(picture, force) as partial:
            _save_picture(rankings, partial)
    rows = [
        (name, scored.schedule, f"{scored.score:.5g}", measure(scored))
        for name, ranking in rankings.items()
        for scored in ranking[:SHOWN]
    ]
    shown = table(("family", "schedule", "score", "measure"), rows, ("schedule", "measure"))
    values = {"bundle": str(bundle.path), "schedules": schedules, "quality": quality}
    result(as_json, values, f"{shown}\n\nthe best schedule of each family is now in {bundle.path}")


def _judge(data: str, bundle: Bundle, value_range: ValueRange) -> tuple[Judge, str]:
    """Return a judge of the data, and the name of the images that schedules are measured against.

    Its classifier is fitted to most of the data. The rest, or the validation part of digits, is held out.
    """
    from ..evaluation.classifier import train_classifier
    from ..evaluation.data import held_out
    from ..evaluation.quality import Judge

    train, real = held_out(data, bundle.manifest.model, "validation", value_range=value_range)
    for line in dict.fromkeys((*train.notes, *real.notes)):
        note(line)
    progress(f"judge: a classifier fitted to {len(train)} images; {len(real)} others to measure against")
    samples, reconstructed = min(len(train), MOST_SAMPLES), min(len(real), MOST_RECONSTRUCTED)
    classifier = train_classifier(train)
    return Judge(classifier, train, real, samples=samples, reconstructed=reconstructed), real.name


def _save_picture(rankings: Rankings, path: Path) -> None:
    """Write a PNG file with a panel per family: the score against the last of its levels."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    size = (5.5 * len(rankings), 4)
    figure, axes = plt.subplots(1, len(rankings), figsize=size, squeeze=False, layout="constrained")
    for panel, (name, ranking) in zip(axes[0], rankings.items(), strict=True):
        _draw_panel(panel, name, ranking)
    figure.savefig(path, format="png", dpi=150)
    plt.close(figure)


def _draw_panel(panel: Axes, name: str, ranking: list[Scored]) -> None:
    """Draw a line for each choice of the levels before the last one, and mark the best schedule."""
    from ..evaluation.search import measure

    lines: dict[tuple[float, ...], list[Scored]] = {}
    for scored in sorted(ranking, key=lambda scored: scored.levels):
        lines.setdefault(scored.levels[:-1], []).append(scored)
    for others, members in lines.items():
        label = ", ".join(f"{level:g}" for level in others) if 1 < len(lines) <= LEGIBLE else None
        levels = [scored.levels[-1] for scored in members]
        scores = [scored.score for scored in members]
        panel.plot(levels, scores, ".-", linewidth=0.8, label=label)
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
        xscale="log",
        title=name,
        xlabel="last level of the search",
        ylabel=measure(best).replace("_", " "),
    )
    panel.legend(fontsize="small")
