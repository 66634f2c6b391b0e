"""bcm-edge map: one task over many images, on the workers of a Ray cluster or of this machine."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import InputError, ShardError
from ..runtime.arguments import target_classes
from ..runtime.checks.doctor import require_extra
from ..runtime.loading import load
from ..runtime.machine.resources import check_disk, check_memory
from ..runtime.pipeline import BCM
from ..runtime.pixels import ValueRange
from ..runtime.storage.shipped import located
from .console import note_engines, progress, result
from .mapping_labels import job_labels
from .mapping_progress import ShardProgress
from .options import (
    backend_option,
    batch_option,
    bundle_argument,
    device_option,
    json_option,
    label_option,
    output_option,
    precision_option,
    value_range_option,
)
from .paths import PATH_OR_NAME, check_utf8
from .schedules import restoring, to_image, to_noise

if TYPE_CHECKING:
    from ..jobs.dataset import Source
    from ..jobs.job import Job
    from ..jobs.running import Outcome

# Task → its options.
TASKS = {
    "invert": ("inversion",),
    "generate": ("schedule",),
    "reconstruct": ("inversion", "schedule"),
    "restyle": ("to", "inversion", "schedule"),
    "restore": ("strength", "schedule"),
}
DEFAULTS = {"inversion": "invert-2", "schedule": "one-step", "strength": 0.2}
NAMED = 5  # failed shards that the last line names
SHARD_BYTES = 1000  # memory of a shard in the lists of a job


@click.command(
    short_help="Run one task over many images, on Ray.",
    epilog="Example:  bcm-edge map digits shards/ -o latents --task invert",
)
@bundle_argument
@click.argument("dataset", type=PATH_OR_NAME)
@output_option(
    "The folder to write: a file per shard, and job.json. If it exists, its job is continued.", "folder"
)
@click.option("--task", required=True, type=click.Choice(list(TASKS)), help="The task to run on every row.")
@click.option(
    "--workers",
    metavar="N",
    type=click.IntRange(1),
    help="Number of workers, each with the bundle in memory (default: as many as the processors allow).",
)
@click.option(
    "--threads",
    metavar="N",
    default=1,
    show_default=True,
    type=click.IntRange(1),
    help="CPU threads of each worker.",
)
@click.option(
    "--ray", "address", is_flag=False, flag_value="local", default="local", metavar="[ADDRESS]",
    help="The Ray cluster: HOST:PORT, or auto for the one that this machine belongs to (default: start Ray "
    "on this machine for the duration of the command).",
)  # fmt: skip
@click.option(
    "--schedule",
    help="Schedule to the image, for generate, reconstruct, restyle and restore: a name or levels (default: "
    "one-step).",
)
@click.option(
    "--inversion",
    metavar="SCHEDULE",
    help="Schedule to noise, for invert, reconstruct and restyle: a name or levels (default: invert-2).",
)
@click.option(
    "--to",
    metavar="LABELS",
    help="For restyle: the class to generate, or a list that is repeated in order. Required there.",
)
@click.option(
    "--strength",
    metavar="X",
    type=click.FloatRange(0, min_open=True),
    help="For restore: noise level of the damage, at least 0.002 and below 5 (default: 0.2).",
)
@click.option(
    "--seed",
    metavar="N",
    default=0,
    show_default=True,
    type=click.IntRange(0),
    help="Seed of row 0, if the data has no seeds; row k gets seed N + k.",
)
@label_option(
    "Class labels: a number, a name, a list that is repeated in order (0,1,2 or dog,cat), all, or guess "
    "to let the model guess them (default: those in the data)."
)
@click.option(
    "--rows",
    metavar="N",
    default=1024,
    show_default=True,
    type=click.IntRange(1),
    help="Maximum number of rows in an output file; longer inputs are split.",
)
@click.option(
    "--format",
    "format_",
    type=click.Choice(["npz", "parquet"]),
    help="Format of the output files (default: that of the input; npz for a number of images).",
)
@batch_option
@value_range_option
@backend_option
@precision_option
@device_option
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
    to: str | None,
    strength: float | None,
    seed: int,
    label: str | None,
    rows: int,
    format_: str | None,
    batch: int | None,
    value_range: ValueRange,
    backend: str,
    precision: str | None,
    device: str | None,
    as_json: bool,
) -> None:
    """Run a task over DATASET: an npz or Parquet file, a folder of them, a folder of image files or of
    sub-folders that are classes, or for generate a number of images.

    The seed and the label of a row are those in the data, or follow from the number of the row in the data
    set. Results therefore do not depend on the workers. Output files are complete or absent. If the command
    is interrupted, run it again: it continues with the files that are missing.
    """
    require_extra("scale")
    from ..jobs.dataset import find
    from ..jobs.job import Job
    from ..jobs.running import run

    check_utf8(bundle, dataset, output)
    options = _options(task, {"schedule": schedule, "inversion": inversion, "to": to, "strength": strength})
    _check_device(device)
    with load(bundle, backend, batch, precision, threads=threads, device=device) as bcm:
        note_engines(bcm.bundle, bcm.backend, backend, device)
        programs = _programs(bcm, task, options)
        sources = find(dataset, task, bcm.sample_shape)
        _check_size(sources, rows, seed, output, bcm)
        job = Job(
            task=task,
            schedule=programs["schedule"],
            inversion=programs["inversion"],
            strength=options["strength"],
            seed=seed,
            labels=job_labels(label, task, bcm, sources),
            bundle=bcm.bundle.hashes(bcm.backend.precision),
            backend=bcm.backend.name,
            precision=bcm.backend.precision,
            batch=bcm.batch,
            threads=threads,
            rows=rows,
            format=format_ or "",
            to=target_classes(to, bcm.num_classes, bcm.classes) if task == "restyle" else None,
            value_range=None if value_range is None else f"{value_range[0]:g},{value_range[1]:g}",
        )
    outcome = run(job, located(bundle), output, sources, address, workers, ShardProgress)
    _report(job, output, outcome, as_json)


def _check_device(device: str | None) -> None:
    """Raise InputError for the number of a GPU: Ray chooses the GPU of each worker."""
    if device and ":" in device:
        raise InputError(
            f"--device {device}: Ray chooses the GPU of each worker; use --device gpu, and set "
            "CUDA_VISIBLE_DEVICES to leave out GPUs"
        )


def _options(task: str, options: dict[str, Any]) -> dict[str, Any]:
    """Return the options of a task with their defaults; None for those of other tasks.

    Raises click.UsageError for an option of another task.
    """
    own = TASKS[task]
    for name, value in options.items():
        if value is not None and name not in own:
            raise click.UsageError(f"--{name} is not an option of {task}, which has --{', --'.join(own)}")
    if task == "restore":  # a schedule replaces the strength
        given = [name for name in own if options[name] is not None]
        if len(given) > 1:
            raise click.UsageError("--strength and --schedule cannot be combined; give one of them")
        return options if given else options | {"strength": DEFAULTS["strength"]}
    return options | {name: DEFAULTS[name] for name in own if options[name] is None and name in DEFAULTS}


def _programs(bcm: BCM, task: str, options: dict[str, Any]) -> dict[str, str | None]:
    """Return the texts of --schedule and --inversion, None where the task has none.

    Raises ScheduleError for a schedule of another direction.
    """
    checked = {"schedule": restoring if task == "restore" else to_image, "inversion": to_noise}
    return {
        name: None if options[name] is None else str(check(bcm, options[name]))
        for name, check in checked.items()
    }


def _check_size(sources: Sequence[Source], rows: int, seed: int, output: Path, bcm: BCM) -> None:
    """Raise InputError for a job that is too large for memory, for the disk, or for the range of seeds."""
    from ..jobs.job import JOB

    images = sum(max(source.rows, 0) for source in sources)
    shards = images // rows
    check_memory(
        shards * SHARD_BYTES, f"the list of {shards} shards", "process fewer images, or increase --rows"
    )
    if not (output / JOB).exists():  # a job that is continued has written a part of its outputs
        size = images * 4 * math.prod(bcm.sample_shape)
        check_disk(size, output, f"{images} images", "process fewer images, or write to another disk")
    if seed + images > 2**64 and any("seeds" not in source.holds for source in sources):
        raise InputError(
            f"--seed {seed} is too large for {images} images: the largest seed is 2**64 - 1; "
            "give a smaller --seed"
        )


def _report(job: Job, output: Path, outcome: Outcome, as_json: bool) -> None:
    """Print a line about the job, and the result. Raises ShardError if shards failed."""
    rate = outcome.images / outcome.seconds if outcome.seconds else 0.0
    if outcome.workers:
        done = f"{outcome.images} images in {outcome.seconds:.2f} s, {rate:.0f} images/s"
        progress(f"{done}; workers: {outcome.workers}, in {job.precision} on {job.backend}")
    else:
        progress(f"all {outcome.shards} shards were already done")
    values = {
        "output": str(output),
        "task": job.task,
        **asdict(outcome),
        "backend": job.backend,
        "precision": job.precision,
    }
    result(as_json, values, str(output))
    if outcome.failed:
        problems = [f"{name}: {problem}" for name, problem in outcome.failed.items()]
        more = f"; and {len(problems) - NAMED} more" if len(problems) > NAMED else ""
        raise ShardError(
            f"{len(problems)} shards failed, all others are done: {'; '.join(problems[:NAMED])}{more}. "
            "Fix the cause and run the command again"
        )
