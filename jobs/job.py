"""What a job is: everything that decides its outputs, written to job.json before the first of them, and held against it at a restart."""

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
TRIED = ".tried"  # ends the names of hidden files beside outputs that are being made


@dataclass(frozen=True)
class Job:
    """What is done to every row. Two jobs with equal fields write equal bytes, on one kind of processor and one version of the runtime.

    schedule, inversion: programs as text, None where the task has none. labels: taken in turn by row number, GUESS, or None for those
    of the data. bundle: file name → sha256 of what computes. rows: most rows of an output. format: of outputs, "" for that of the input.
    value_range: of float images, as the command line writes it; None to refuse images of an unclear range.
    """

    task: str
    schedule: str | None
    inversion: str | None
    strength: float | None
    seed: int
    labels: list[int] | str | None
    bundle: dict[str, str]
    backend: str
    precision: str
    batch: int
    threads: int
    rows: int
    format: str
    value_range: str | None = None


@dataclass(frozen=True)
class Shard:
    """Rows [start, stop) of one input, and the output they become.

    name: of the output file. path: of the input, "" where there is none (generate, from a number). first: number of row `start` in the
    whole data set, -1 where a file before this one cannot be read.
    """

    name: str
    path: str
    start: int
    stop: int
    first: int


def split(sources: Sequence[Source], job: Job) -> list[Shard]:
    """The shards of all sources that can be read, in order: a file of up to job.rows rows keeps its name, others become NAME-00000 …

    Raises JobError where two outputs would have one name.
    """
    shards: list[Shard] = []
    first = 0
    for source in sources:
        if not source.problem:
            own = Path(source.name).suffix.lower()
            suffix = f".{job.format}" if job.format else ".npz" if own == ".npy" else own
            starts = range(0, source.rows, job.rows)
            names = [
                f"{Path(source.name).stem}{f'-{index:05d}' if len(starts) > 1 else ''}{suffix}"
                for index in range(len(starts))
            ]
            shards += [
                Shard(
                    name,
                    source.path,
                    start,
                    min(start + job.rows, source.rows),
                    first + start if first >= 0 else -1,
                )
                for name, start in zip(names, starts, strict=True)
            ]
        first = first + source.rows if first >= 0 and source.rows >= 0 else -1
    seen: set[str] = set()
    for shard in shards:
        if shard.name in seen:
            raise JobError(f"two inputs would both be written as {shard.name}; rename one of them")
        seen.add(shard.name)
    return shards


@contextmanager
def opened(output: Path, job: Job, sources: Sequence[Source]) -> Iterator[list[Shard]]:
    """The folder with its job.json, this process's alone; yields the shards. Begins the job or goes on with it.

    Raises OutputError for a folder with other things or one that cannot be written, JobError for a job begun with other arguments or
    data, or one that another process is at. What killed processes left unfinished is removed at both ends.
    """
    shards = split(sources, job)
    with _alone(output):
        _check_begun(output, job, sources, shards)
        given = {"schema": SCHEMA, "job": asdict(job), "files": [source.facts() for source in sources]}
        _sweep(output)
        with replacing(output / JOB, force=True) as partial:
            partial.write_text(json.dumps(given, indent=1) + "\n")
        yield shards
        _sweep(output)


def _sweep(output: Path) -> None:
    sweep(output)
    for mark in output.glob(f".*{TRIED}"):
        mark.unlink(missing_ok=True)


def _check_begun(output: Path, job: Job, sources: Sequence[Source], shards: Sequence[Shard]) -> None:
    """Raise JobError unless the folder's job is this one; OutputError if it has none, but other things."""
    file = output / JOB
    if not file.exists():
        if any(not other.name.startswith(".") for other in output.iterdir()):
            raise OutputError(f"{output} is a folder with other things in it; choose another name")
        return
    try:
        begun = json.loads(file.read_text())
        schema, fields, files = (
            begun["schema"],
            dict(begun["job"]),
            {facts["name"]: dict(facts) for facts in begun["files"]},
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise JobError(
            f"{file}: not a job's record ({type(error).__name__}: {error}); choose another folder"
        ) from error
    if schema != SCHEMA:
        raise JobError(
            f"{output} holds a job of another version of bcm-edge (schema {schema}, this one has {SCHEMA}); choose another folder"
        )
    for name, value in asdict(job).items():
        if fields.get(name) != value:
            raise JobError(
                f"{output} holds a job with other arguments: {name} was {_short(fields.get(name))}, now {_short(value)}; "
                "give the same, or choose another folder"
            )
    given = {source.name: source for source in sources}
    if apart := sorted({*files} ^ {*given}):
        raise JobError(
            f"{output} holds a job over other data: {apart[0]} {'is missing' if apart[0] in files else 'is new'}; choose another folder"
        )
    for name, source in given.items():
        _check_file(output, files[name], source, shards)


def _check_file(output: Path, begun: dict[str, Any], source: Source, shards: Sequence[Shard]) -> None:
    """A file of which nothing was made may be repaired: with as many rows as it had, or any number where they could not be counted."""
    if begun == source.facts():
        return
    made = any((output / shard.name).exists() for shard in shards if shard.path == source.path)
    if made or begun.get("rows") not in (-1, source.rows):
        raise JobError(
            f"{source.name} has changed since the job in {output} was begun; choose another folder for a new one"
        )


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the folder against other processes; the system lets go of it however this one ends. Raises JobError, OutputError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY)
    except FileExistsError as error:
        raise OutputError(f"{folder} is not a folder; a job writes a folder, choose another name") from error
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written ({error.strerror or error})") from error
    try:
        _lock(descriptor, folder)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, folder: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise JobError(f"{folder}: another process is at this job") from None
    except OSError:  # a file system without locks: outputs are whole all the same
        return
