"""A job: everything that decides its outputs. It is recorded in job.json, and checked at a restart."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..errors import JobError, OutputError
from ..runtime.storage.files import replacing, sweep
from .dataset import Source

JOB = "job.json"
SCHEMA = 1
TRIED = ".tried"  # suffix of the hidden files beside outputs that are being made


@dataclass(frozen=True)
class Job:
    """A job: the task, and the options with which it processes every row.

    Jobs with equal fields write equal bytes, on one kind of processor and with one version of the runtime.
    """

    # generate, invert, reconstruct, restyle or restore.
    task: str
    # The schedule to the image as text; None if the task has none.
    schedule: str | None
    # The schedule to noise as text; None if the task has none.
    inversion: str | None
    # The strength of restore; None for other tasks, and where `schedule` replaces it.
    strength: float | None
    # The seed of row 0, if the data has no seeds.
    seed: int
    # A list that rows take in order of their numbers, "guess", or None for the labels of the data.
    labels: list[int] | str | None
    # Name of a file of the bundle that computes → its sha256.
    bundle: dict[str, str]
    backend: str
    precision: str
    # Images per network call.
    batch: int
    # Processors of a worker.
    threads: int
    # Maximum number of rows in an output file.
    rows: int
    # Format of the outputs, npz or parquet; "" for that of the input.
    format: str
    # The range of float images as on the command line; None refuses images whose range is unclear.
    value_range: str | None = None
    # The classes that restyle generates, which rows take in order of their numbers; None for other tasks.
    to: list[int] | None = None


@dataclass(frozen=True)
class Shard:
    """Rows [start, stop) of an input file, and the output file that is made from them."""

    # Name of the output file.
    name: str
    # Path of the input file; "" if images are generated from their seeds.
    path: str
    start: int
    stop: int
    # Number of row `start` in the data set; -1 if a file before this one cannot be read.
    first: int


def split(sources: Sequence[Source], job: Job) -> list[Shard]:
    """Return the shards of all usable files, in order.

    The output of a file of up to `job.rows` rows has its name. Longer files are split into NAME-00000, …
    Raises JobError if two outputs have the same name.
    """
    shards: list[Shard] = []
    first = 0
    for source in sources:
        if not source.problem:
            shards += _shards_of(source, job, first)
        first = first + source.rows if first >= 0 and source.rows >= 0 else -1
    names: set[str] = set()
    for shard in shards:
        if shard.name in names:
            raise JobError(f"two inputs would both be written to {shard.name}; rename one of them")
        names.add(shard.name)
    return shards


def _shards_of(source: Source, job: Job, first: int) -> Iterator[Shard]:
    """Yield the shards of a file. first: the number of its first row in the data set, -1 if it is unknown."""
    suffix = Path(source.name).suffix.lower()
    if job.format:
        suffix = f".{job.format}"
    elif suffix == ".npy":
        suffix = ".npz"
    starts = range(0, source.rows, job.rows)
    for index, start in enumerate(starts):
        part = f"-{index:05d}" if len(starts) > 1 else ""
        name = f"{Path(source.name).stem}{part}{suffix}"
        stop = min(start + job.rows, source.rows)
        yield Shard(name, source.path, start, stop, first + start if first >= 0 else -1)


@contextmanager
def opened(output: Path, job: Job, sources: Sequence[Source]) -> Iterator[list[Shard]]:
    """Open the output folder of a job for this process alone, to start the job or to continue it.

    Yields all shards. Files that killed processes left unfinished are removed at the start and at the end.
    Raises OutputError if the folder contains other things or cannot be written; JobError if its job has other
    arguments or data, or if another process runs it.
    """
    shards = split(sources, job)
    with _locked(output):
        _check_same_job(output, job, sources, shards)
        record = {"schema": SCHEMA, "job": asdict(job), "files": [source.facts() for source in sources]}
        _sweep(output)
        with replacing(output / JOB, force=True) as partial:
            partial.write_text(json.dumps(record, indent=1) + "\n")
        yield shards
        _sweep(output)


def _sweep(output: Path) -> None:
    """Remove unfinished files."""
    sweep(output)
    for mark in output.glob(f".*{TRIED}"):
        mark.unlink(missing_ok=True)


def _check_same_job(output: Path, job: Job, sources: Sequence[Source], shards: Sequence[Shard]) -> None:
    """Raise JobError unless the folder is empty or has this job; OutputError if it has other files only."""
    if not (output / JOB).exists():
        if any(not file.name.startswith(".") for file in output.iterdir()):
            raise OutputError(f"{output} contains other files and no job; choose another output folder")
        return
    fields, files = _read_record(output)
    for name, value in asdict(job).items():
        if fields.get(name) != value:
            raise JobError(
                f"{output} contains a job with other arguments: {name} was {_short(fields.get(name))}, "
                f"now it is {_short(value)}; give the same arguments, or choose another output folder"
            )
    names = {source.name for source in sources}
    if differing := sorted({*files} ^ names):
        change = "is missing" if differing[0] in files else "is new"
        raise JobError(
            f"{output} contains a job for other data: {differing[0]} {change}; choose another output folder"
        )
    for source in sources:
        _check_same_file(output, files[source.name], source, shards)


def _read_record(output: Path) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Return the fields of the job in job.json, and what it records about each file. Raises JobError."""
    file = output / JOB
    try:
        record = json.loads(file.read_text())
        schema, fields = record["schema"], dict(record["job"])
        files = {facts["name"]: dict(facts) for facts in record["files"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise JobError(f"{file}: not the record of a job ({reason}); choose another output folder") from error
    if schema != SCHEMA:
        raise JobError(
            f"{output} has a job of another version of bcm-edge (schema {schema}, not {SCHEMA}); "
            "choose another output folder"
        )
    return fields, files


def _check_same_file(output: Path, record: dict[str, Any], source: Source, shards: Sequence[Shard]) -> None:
    """Raise JobError if a file has changed since the job was started.

    A file without outputs may be repaired. Its number of rows must stay the same, if it could be counted.
    """
    if record == source.facts():
        return
    has_outputs = any((output / shard.name).exists() for shard in shards if shard.path == source.path)
    if has_outputs or record.get("rows") not in (-1, source.rows):
        raise JobError(
            f"{source.name} has changed since the job in {output} was started; choose another output folder "
            "for a new job"
        )


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Create the folder and lock it. The system releases the lock however this process ends.

    Raises JobError if another process has the lock, OutputError if the folder cannot be created.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY)
    except FileExistsError as error:
        raise OutputError(f"{folder} is a file; map writes a folder, choose another output") from error
    except OSError as error:
        raise OutputError(
            f"{folder}: cannot be written ({error.strerror or error}); choose another output folder"
        ) from error
    try:
        _lock(descriptor, folder)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, folder: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise JobError(
            f"{folder}: another process runs this job; wait for it, or choose another output folder"
        ) from None
    except OSError:  # a file system without locks; outputs are complete or absent there, too
        return
