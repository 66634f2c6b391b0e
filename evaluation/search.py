"""The search for the levels of a bundle's schedules: what `bcm-edge calibrate --search-schedule` does.

The families of schedules and their grids of levels are in calibration/levels.py. A judge scores every
schedule on held-out images; the best schedule of each family goes into the manifest of the bundle.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..calibration.levels import GENERATION, INVERSION, Scored, ranked
from ..runtime.loading import load
from ..runtime.schedule import Schedule
from ..runtime.storage.bundle import Bundle, open_bundle
from ..runtime.storage.rewriting import update_manifest
from .quality import Judge

FIRST_SEED = 1_000_000  # first seed of the samples that schedules are scored on

Report = Callable[[str], None]  # gets one line of progress
Rankings = dict[str, list[Scored]]  # name of the family → all of its schedules, the best first


def rank_schedules(bundle: Bundle, nfe: int, judge: Judge, report: Report) -> Rankings:
    """Score all schedules of `nfe` network calls with the bundle's fp32 graphs."""
    rankings: Rankings = {}
    with load(bundle.path, precision="fp32") as bcm:
        for name, family in {**GENERATION, **INVERSION}.items():
            if family.nfe != nfe:
                continue
            report(f"{name}: {len(family.levels)} schedules {family.template}")
            rankings[name] = ranked(
                family,
                lambda schedule: judge.score(schedule, bcm.backend, FIRST_SEED),
                _counter(len(family.levels), report),
            )
    return rankings


def save_best(
    bundle: Bundle, rankings: Rankings, judge: Judge, source: str
) -> tuple[dict[str, str], dict[str, dict[str, Any]]]:
    """Write the best schedule of each family into the bundle's manifest.

    source: the name of the judge's held-out images. Returns the schedules (name → text) and their scores,
    with facts about how they were scored (name → values).
    """
    best = {name: ranking[0] for name, ranking in rankings.items()}
    schedules = {name: str(scored.schedule) for name, scored in best.items()}
    quality = {
        name: {measure(scored): scored.score, **search_facts(scored.schedule, judge, source)}
        for name, scored in best.items()
    }
    update_manifest(
        bundle, lambda m: replace(m, schedules=m.schedules | schedules, quality=m.quality | quality)
    )
    return schedules, quality


def search_levels(path: Path, calls: Sequence[int], judge: Judge, source: str, report: Report) -> None:
    """Write the best schedules with some numbers of network calls into the manifest of a bundle."""
    for nfe in calls:
        bundle = open_bundle(path)
        schedules, _ = save_best(bundle, rank_schedules(bundle, nfe, judge, report), judge, source)
        report(f"best with {nfe}: {schedules}")


def search_facts(schedule: Schedule, judge: Judge, source: str) -> dict[str, Any]:
    """Return how a judge scores a schedule, for a manifest. source: the name of the held-out images."""
    if schedule.from_image:
        return {"data": source, "images": len(judge.originals), "seed": FIRST_SEED}
    return {"data": source, "images": len(judge.images), "samples": judge.samples, "seed": FIRST_SEED}


def measure(scored: Scored) -> str:
    """The name of what the score measures."""
    return "reconstruction_mse" if scored.schedule.from_image else "frechet_ratio"


def _counter(total: int, report: Report) -> Callable[[Scored], None]:
    """Report each schedule with its number out of `total`."""
    numbers = iter(range(1, total + 1))
    return lambda scored: report(f"  {next(numbers)}/{total}  {scored.score:.5g}  {scored.schedule}")
