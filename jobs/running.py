"""A job from its folder to its outcome: what is missing is played, and what could not be is named."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from .cluster import connected, play_all
from .dataset import Source
from .job import Job, opened
from .player import Done

LOST = "Ray gave it up"


@dataclass(frozen=True)
class Outcome:
    """shards: of the job; before: those of an earlier run; images, seconds: of this one, Ray's start left out. failed: name → why."""

    shards: int
    before: int
    images: int
    seconds: float
    workers: int
    failed: dict[str, str]


def run(
    job: Job,
    bundle: Path,
    output: Path,
    sources: Sequence[Source],
    address: str,
    workers: int | None,
    told: Callable[[int, int, int], Callable[[Done], None]],
) -> Outcome:
    """Do what is missing of a job. told(shards, before, workers) is called when playing starts; what it returns, after every shard.

    Raises JobError and OutputError as `opened` and `connected` do; shards that cannot be done are part of the outcome.
    """
    failed = {source.name: source.problem for source in sources if source.problem}
    with opened(output, job, sources) as shards:
        missing = [shard for shard in shards if not (output / shard.name).exists()]
        before = len(shards) - len(missing)
        if not missing:
            return Outcome(len(shards), before, 0, 0.0, 0, failed)
        with connected(address, workers, job.threads) as number:
            number = min(number, len(missing))
            heard, started, images = told(len(shards), before, number), time.perf_counter(), 0
            waiting = {shard.name for shard in missing}
            for done in play_all(job, bundle, output, missing, number):
                waiting.discard(done.name)
                images += done.images
                failed |= {done.name: done.problem} if done.problem else {}
                heard(done)
            seconds = time.perf_counter() - started
        failed |= {name: LOST for name in sorted(waiting) if not (output / name).exists()}
    return Outcome(len(shards), before, images, seconds, number, failed)
