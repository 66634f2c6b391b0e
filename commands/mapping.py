"""bcm-edge map: one task over many images, on the workers of a Ray cluster or of this machine."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import InputError, LabelError, ShardError
from ..runtime.arguments import check_labels
from ..runtime.batches import BATCH
from ..runtime.classes import GUESS, NOTHING_TO_GUESS, labels_of, refuse_guess
from ..runtime.loading import load
from ..runtime.machine.resources import check_disk, check_memory
from ..runtime.pipeline import BCM
from ..runtime.pixels import ValueRange
from .console import (
    backend_option,
    bundle_argument,
    json_option,
    note_engines,
    output_option,
    precision_option,
    progress,
    require_extra,
    result,
    value_range_option,
)
from .paths import PATH_OR_NAME, check_utf8
from .run import GUESSABLE

if TYPE_CHECKING:
    from ..jobs.dataset import Source
    from ..jobs.job import Job
    from ..jobs.player import Done
    from ..jobs.running import Outcome

TASKS = {  # task → the options that it takes
    "invert": ("inversion",),
    "generate": ("schedule",),
    "reconstruct": ("inversion", "schedule"),
    "restore": ("strength", "schedule"),
}
DEFAULTS = {"inversion": "invert-2", "schedule": "one-step", "strength": 0.2}
NAMED = 5  # failed shards in the last line
SHARD_BYTES = 1000  # of memory that a shard takes in lists
EVERY = 5.0  # seconds between lines of progress where nobody watches


@click.command(
    short_help="One task over many images, on Ray.",
    epilog="Example:  bcm-edge map digits.bundle shards/ -o latents --task invert --label guess --workers 4",
)
@bundle_argument
@click.argument("dataset", type=PATH_OR_NAME)
@output_option("A folder: one output per shard, and job.json. Given again, the job goes on.", "folder")
@click.option("--task", required=True, type=click.Choice(list(TASKS)), help="What is done to every row.")
@click.option(
    "--workers",
    type=click.IntRange(1),
    help="How many hold the bundle at once (default: as many as there are processors for).",
)
@click.option(
    "--threads", default=1, show_default=True, type=click.IntRange(1), help="Processors of each worker."
)
@click.option(
    "--ray", "address", is_flag=False, flag_value="local", default="local", metavar="[ADDRESS]",
    help="HOST:PORT of a cluster, or auto for the one on this machine (default: a Ray of the command's own, here).",
)  # fmt: skip
@click.option(
    "--schedule",
    help="To the image, for generate, reconstruct and restore: a name or text (default one-step).",
)
@click.option(
    "--inversion", help="To the noise, for invert and reconstruct: a name or text (default invert-2)."
)
@click.option(
    "--strength",
    type=click.FloatRange(0, min_open=True),
    help="For restore: the noise level below which all is damage (0.2).",
)
@click.option(
    "--seed",
    default=0,
    show_default=True,
    type=click.IntRange(0),
    help="Of row 0, where the data has no seeds; others count on.",
)
@click.option("--label", metavar="LABELS", help=f"{GUESSABLE} Default: those of the data.")
@click.option(
    "--rows",
    default=1024,
    show_default=True,
    type=click.IntRange(1),
    help="Most rows of an output; longer files are cut.",
)
@click.option(
    "--format",
    "format_",
    type=click.Choice(["npz", "parquet"]),
    help="Of the outputs (default: as the input; npz for a number).",
)
@click.option(
    "--batch",
    type=click.IntRange(1),
    help=f"Most images per network call (default: {BATCH}; on an engine, what it takes).",
)
@value_range_option
@backend_option
@precision_option
@json_option
def map(
    bundle: Path,
    dataset: str,
    output: Path,
    task: str,
    workers: int | None,
    threads: int,
    address: str,
    schedule: str | None,
    inversion: str | None,
    strength: float | None,
    seed: int,
    label: str | None,
    rows: int,
    format_: str | None,
    batch: int | None,
    value_range: ValueRange,
    backend: str,
    precision: str | None,
    as_json: bool,
) -> None:
    """Play a task over DATASET: an npz or Parquet file, a folder of them, or for generate a number of images.

    A row's seed and label are those of the data, else of its number in the data set, so nothing depends on the workers. What is
    there is whole; after a crash the same command does what is missing.
    """
    require_extra("scale")
    from ..jobs.dataset import find
    from ..jobs.job import Job
    from ..jobs.running import run

    check_utf8(bundle, dataset, output)
    options = _options(task, schedule, inversion, strength)
    with load(bundle, backend, batch, precision) as bcm:
        if backend == "auto":
            note_engines(bcm.bundle, bcm.backend)
        programs = {
            name: str(bcm.bundle.schedule(options[name])) if options[name] else None
            for name in ("schedule", "inversion")
        }
        sources = find(dataset, task, bcm.sample_shape)
        _check_size(sources, rows, seed, output, bcm)
        job = Job(
            task=task,
            schedule=programs["schedule"],
            inversion=programs["inversion"],
            strength=options["strength"],
            seed=seed,
            labels=_labels(label, task, bcm, sources),
            bundle=bcm.bundle.hashes(bcm.backend.precision),
            backend=bcm.backend.name,
            precision=bcm.backend.precision,
            batch=bcm.batch,
            threads=threads,
            rows=rows,
            format=format_ or "",
            value_range=None if value_range is None else f"{value_range[0]:g},{value_range[1]:g}",
        )
    outcome = run(job, bundle, output, sources, address, workers, Watch)
    _report(job, output, outcome, as_json)


def _options(
    task: str, schedule: str | None, inversion: str | None, strength: float | None
) -> dict[str, Any]:
    """The options of a task with their defaults, None for those of other tasks. Raises click.UsageError for one given in vain."""
    given = {"schedule": schedule, "inversion": inversion, "strength": strength}
    for name, value in given.items():
        if value is not None and name not in TASKS[task]:
            raise click.UsageError(f"{task} takes no --{name}; it takes --{', --'.join(TASKS[task])}")
    if task == "restore":
        if schedule is not None and strength is not None:
            raise click.UsageError("give --strength or --schedule, not both")
        return {
            **given,
            "strength": DEFAULTS["strength"] if schedule is None and strength is None else strength,
        }
    return {
        name: DEFAULTS[name] if value is None and name in TASKS[task] else value
        for name, value in given.items()
    }


def _labels(text: str | None, task: str, bcm: BCM, sources: list[Source]) -> list[int] | str | None:
    """What a job notes of labels. Raises LabelError where the model would refuse them, or has to do without."""
    from ..jobs.dataset import names

    if text == GUESS:
        if task == "generate":
            refuse_guess(text)
        if bcm.num_classes is None:
            raise LabelError(NOTHING_TO_GUESS)
        return GUESS
    if text is not None:
        return labels_of(text, bcm.num_classes, bcm.classes)
    if "labels" not in names(sources) and bcm.num_classes is not None:
        check_labels(None, 1, bcm.num_classes, bcm.classes)
    return None


def _check_size(sources: Sequence[Source], rows: int, seed: int, output: Path, bcm: BCM) -> None:
    """Raise InputError for a job whose outputs do not fit where they are to go, whose list of shards does not fit in memory, or whose
    seeds grow too large."""
    from ..jobs.job import JOB

    images = sum(max(source.rows, 0) for source in sources)
    check_memory(
        images // rows * SHARD_BYTES,
        f"the list of {images // rows} shards",
        "give fewer images, or more --rows",
    )
    if not (output / JOB).exists():  # a job that goes on has written a part already
        check_disk(
            images * 4 * math.prod(bcm.sample_shape),
            output,
            f"{images} images",
            "give fewer, or another disk",
        )
    if seed + images > 2**64 and any("seeds" not in source.holds for source in sources):
        raise InputError(f"--seed {seed} is too large for {images} images: seeds end at 2**64 - 1")


class Watch:
    """Progress on stderr, after every shard: a bar where somebody watches, else a line at the first and the last, and every few seconds."""

    def __init__(self, shards: int, before: int, workers: int) -> None:
        self._shards, self._done, self._images = shards, before, 0
        self._started, self._said = time.perf_counter(), -EVERY
        self._watched = sys.stderr.isatty()
        progress(
            f"{shards} shards{f', {before} of them done before' if before else ''}; {workers} worker{'s' * (workers > 1)}"
        )

    def __call__(self, done: Done) -> None:
        self._done, self._images = self._done + 1, self._images + done.images
        passed = time.perf_counter() - self._started
        if done.problem:
            progress(f"{done.name} could not be done: {done.problem}")
        line = f"{self._done} of {self._shards} shards, {self._images / passed:.0f} images/s"
        if self._watched:
            click.echo(f"\r{line}\033[K", file=sys.stderr, nl=self._done == self._shards)
        elif passed - self._said >= EVERY or self._done == self._shards:
            self._said = passed
            progress(line)


def _report(job: Job, output: Path, outcome: Outcome, as_json: bool) -> None:
    """The job in a line, and the result. Raises ShardError if there are shards that could not be done."""
    rate = outcome.images / outcome.seconds if outcome.seconds else 0.0
    if outcome.workers:
        played = f"{outcome.images} images in {outcome.seconds:.2f} s, {rate:.0f} images/s"
        progress(f"{played}; workers: {outcome.workers}, in {job.precision} on {job.backend}")
    else:
        progress(f"all {outcome.shards} shards were done before")
    result(
        as_json,
        {
            "output": str(output),
            "task": job.task,
            **asdict(outcome),
            "backend": job.backend,
            "precision": job.precision,
        },
        str(output),
    )
    if outcome.failed:
        named = "; ".join(f"{name}: {problem}" for name, problem in list(outcome.failed.items())[:NAMED])
        more = len(outcome.failed) - NAMED
        raise ShardError(
            f"{len(outcome.failed)} could not be done, all others are: {named}{f'; and {more} more' if more > 0 else ''}"
        )
