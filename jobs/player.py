"""A worker of a job: it opens the bundle once and processes shards, one after another, without Ray."""

from __future__ import annotations

import contextlib
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import BcmError, BundleError, InputError, LabelError
from ..runtime.arguments import check_labels
from ..runtime.classes import GUESS
from ..runtime.loading import load
from ..runtime.pipeline import BCM
from ..runtime.pixels import SIGNED, parse_value_range
from .dataset import read, write
from .job import TRIED, Job, Shard

TRIES = 4  # how often a shard is tried whose worker dies


@dataclass(frozen=True)
class Done:
    """The result of a shard."""

    name: str
    # Number of images written; 0 if the shard failed.
    images: int
    seconds: float
    # Why the shard failed, or "".
    problem: str = ""


class Player:
    """A worker as Ray Data calls it: takes the fields of a `Shard`, returns the fields of a `Done`.

    It raises nothing. The error of a shard is in `Done.problem`.
    """

    def __init__(self, job: Job, bundle: str, output: str) -> None:
        """Open the bundle. If that fails on this machine, every shard reports it."""
        self._job, self._output, self._problem = job, Path(output), ""
        self._bcm: BCM | None = None
        try:
            self._bcm = open_bundle_of(job, bundle)
        except BcmError as error:
            self._problem = str(error)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Process a shard."""
        shard = _shard(row)
        started = time.perf_counter()
        problem = self._problem or self._process(shard)
        images = 0 if problem else shard.stop - shard.start
        return asdict(Done(shard.name, images, time.perf_counter() - started, problem))

    def _process(self, shard: Shard) -> str:
        """Write the output of a shard if it does not exist. Returns why that failed, or ""."""
        if (self._output / shard.name).exists():  # a worker died after it had written the output
            return ""
        mark = self._output / f".{shard.name}{TRIED}"
        try:
            problem = self._try(shard, mark)
        except BcmError as error:
            problem = str(error)
        except Exception as error:  # a bug or a full disk must not stop the other shards
            problem = f"{type(error).__name__}: {error}"
        with contextlib.suppress(OSError):
            mark.unlink(missing_ok=True)
        return problem

    def _try(self, shard: Shard, mark: Path) -> str:
        if _count_try(mark) > TRIES:
            return (
                f"its worker died {TRIES} times, perhaps because memory does not suffice; "
                "start the job again with fewer --rows or a smaller --batch"
            )
        assert self._bcm
        write(self._output / shard.name, play(self._bcm, self._job, shard))
        return ""


def _shard(row: dict[str, Any]) -> Shard:
    """Return the shard of a row, with the numpy values of Ray converted to those of Python."""
    types = {name: type(value) for name, value in asdict(Shard("", "", 0, 0, 0)).items()}
    return Shard(**{name: convert(row[name]) for name, convert in types.items()})


def _count_try(mark: Path) -> int:
    """Count one more try of a shard, and return their number.

    It is the length of a file, so it survives the death of a worker.
    """
    with mark.open("ab") as file:
        file.write(b".")
        return file.tell()


def open_bundle_of(job: Job, bundle: str) -> BCM:
    """Open the bundle of a job. Raises BackendError; BundleError if it is not that of the job."""
    bcm = load(bundle, job.backend, job.batch, job.precision, SIGNED, threads=job.threads)
    if bcm.bundle.hashes(job.precision) != job.bundle:
        raise BundleError(
            f"{bundle}: not the bundle that the job was started with; start the workers with the same bundle"
        )
    return bcm


def play(bcm: BCM, job: Job, shard: Shard) -> dict[str, np.ndarray | None]:
    """Process a shard, and return the arrays of its output. Raises BcmError.

    Returns `images` or `latents` float32 [n, C, H, W], `seeds` uint64 [n], and `labels` of the results,
    int64 [n] or None.

    The seed and the label of a row are those in the data, or follow from the number of the row in the data
    set. So results do not depend on the number of workers or on their order. Batches end where a shard ends.
    """
    n = shard.stop - shard.start
    inputs: dict[str, np.ndarray] = {}
    if shard.path:
        value_range = parse_value_range(job.value_range) if job.value_range else None
        inputs = read(shard.path, shard.start, shard.stop, job.task, bcm.sample_shape, value_range)
    if "seeds" in inputs:
        seeds = inputs["seeds"].tolist()
    else:
        seeds = [job.seed + number for number in _row_numbers(shard, "seeds")]
    labels = _labels(bcm, job, shard, inputs, seeds)
    to = None if job.to is None else _repeated(job.to, shard, "classes to generate")
    name = "latents" if job.task == "invert" else "images"
    labels_of_results = labels if to is None else to
    return {
        name: _run_task(bcm, job, n, inputs, seeds, labels, to),
        "seeds": np.array(seeds, np.uint64),
        "labels": None if labels_of_results is None else np.asarray(labels_of_results, np.int64),
    }


def _run_task(
    bcm: BCM,
    job: Job,
    n: int,
    inputs: dict[str, np.ndarray],
    seeds: list[int],
    labels: np.ndarray | list[int] | None,
    to: list[int] | None,
) -> np.ndarray:
    schedule, inversion = job.schedule or "", job.inversion or ""
    if job.task == "generate":
        latents = inputs.get("latents")
        return bcm.generate(n, schedule=schedule, seed=seeds, labels=labels, latents=latents)
    images = inputs["images"]
    if job.task == "invert":
        return bcm.invert(images, inversion=inversion, seed=seeds, labels=labels)
    if job.task == "reconstruct":
        return bcm.reconstruct(images, inversion=inversion, schedule=schedule, seed=seeds, labels=labels)
    if job.task == "restyle":
        options: dict[str, Any] = {"inversion": inversion, "schedule": schedule, "seed": seeds}
        return bcm.restyle(images, labels=labels, to=to, **options)
    strength = job.strength or 0.0
    return bcm.restore(images, strength=strength, schedule=job.schedule, seed=seeds, labels=labels)


def _labels(
    bcm: BCM, job: Job, shard: Shard, inputs: dict[str, np.ndarray], seeds: list[int]
) -> np.ndarray | list[int] | None:
    n = shard.stop - shard.start
    if bcm.num_classes is None:
        return None
    if job.labels is None:
        try:
            return check_labels(inputs.get("labels"), n, bcm.num_classes, bcm.classes)
        except LabelError as error:
            raise LabelError(f"{shard.path}: {error}") from None
    if job.labels == GUESS:
        return bcm.guess_labels(inputs["images"], seed=seeds)
    assert isinstance(job.labels, list)
    return _repeated(job.labels, shard, "labels")


def _repeated(labels: list[int], shard: Shard, noun: str) -> list[int]:
    """Return the labels that the rows of a shard take in order of their numbers. noun: for messages."""
    if len(labels) == 1:  # needs no row numbers, which may be unknown
        return [int(labels[0])] * (shard.stop - shard.start)
    return [int(labels[number % len(labels)]) for number in _row_numbers(shard, noun)]


def _row_numbers(shard: Shard, values: str) -> range:
    """Return the numbers of the shard's rows in the data set. Raises InputError if they are unknown."""
    if shard.first < 0:
        raise InputError(
            f"{shard.path}: its {values} depend on the numbers of its rows, which are unknown because a file "
            "before it cannot be read; repair or remove that file"
        )
    return range(shard.first, shard.first + shard.stop - shard.start)
