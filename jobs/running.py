"""Running a job: process the shards that are missing, and report those that failed."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from .cluster import connected, play_all
from .dataset import Source
from .job import Job, opened
from .player import Done

LOST = "Ray did not process it; see the logs of the cluster"


@dataclass(frozen=True)
class Outcome:
    """The result of running a job."""

    # All shards of the job.
    shards: int
    # The shards that an earlier run had done.
    before: int
    # The images of this run.
    images: int
    # The duration of this run, without the start of Ray.
    seconds: float
    # 0 if nothing was missing.
    workers: int
    # Name of an input or shard that failed → the reason.
    failed: dict[str, str]


def run(
    job: Job,
    bundle: Path,
    output: Path,
    sources: Sequence[Source],
    address: str,
    workers: int | None,
    on_start: Callable[[int, int, int], Callable[[Done], None]],
) -> Outcome:
    """Process the shards of a job that are missing in its output folder.

    on_start: called with the numbers of shards, of shards done before, and of workers when processing starts;
    it returns a function that is called after every shard.
    Raises JobError and OutputError as `opened` and `connected` do. Shards that fail are part of the outcome.
    """
    failed = {source.name: source.problem for source in sources if source.problem}
    with opened(output, job, sources) as shards:
        missing = [shard for shard in shards if not (output / shard.name).exists()]
        before = len(shards) - len(missing)
        if not missing:
            return Outcome(len(shards), before, 0, 0.0, 0, failed)
        with connected(address, workers, job.threads) as available:
            used = min(available, len(missing))
            on_done = on_start(len(shards), before, used)
            started, images = time.perf_counter(), 0
            waiting = {shard.name for shard in missing}
            for done in play_all(job, bundle, output, missing, used):
                waiting.discard(done.name)
                images += done.images
                if done.problem:
                    failed[done.name] = done.problem
                on_done(done)
            seconds = time.perf_counter() - started
        failed |= {name: LOST for name in sorted(waiting) if not (output / name).exists()}
    return Outcome(len(shards), before, images, seconds, used, failed)
