"""What one worker does: it opens the bundle once, and plays shard after shard. It knows nothing of Ray."""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import BcmError, BundleError, InputError
from ..runtime.arguments import check_labels
from ..runtime.classes import GUESS
from ..runtime.loading import load
from ..runtime.pipeline import BCM
from ..runtime.pixels import SIGNED, parse_value_range
from .dataset import read, write
from .job import TRIED, Job, Shard

TRIES = 4  # of a shard, before a worker that dies of it each time is spared


@dataclass(frozen=True)
class Done:
    """What became of a shard. problem: why it could not be done, or ""."""

    name: str
    images: int
    seconds: float
    problem: str = ""


class Player:
    """A callable for Ray Data: a row with the fields of Shard → one with the fields of Done. No error of a shard leaves it."""

    def __init__(self, job: Job, bundle: str, output: str) -> None:
        self._job, self._output, self._problem = job, Path(output), ""
        self._bcm: BCM | None = None
        os.environ["BCM_EDGE_THREADS"] = str(job.threads)
        try:
            self._bcm = open_bundle_of(job, bundle)
        except BcmError as error:  # on this machine alone, perhaps: each shard says so
            self._problem = str(error)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        shard = Shard(
            **{name: type(default)(row[name]) for name, default in asdict(Shard("", "", 0, 0, 0)).items()}
        )
        started = time.perf_counter()
        problem = self._problem or self._played(shard)
        return asdict(
            Done(
                shard.name, 0 if problem else shard.stop - shard.start, time.perf_counter() - started, problem
            )
        )

    def _played(self, shard: Shard) -> str:
        """Write the shard's output if it is not there; returns why that cannot be, or ""."""
        if (self._output / shard.name).exists():  # where a worker died after its last word
            return ""
        mark = self._output / f".{shard.name}{TRIED}"
        try:
            if _tries(mark) > TRIES:
                problem = f"its worker died each of the {TRIES} times it was tried; there may be too little memory for it"
            else:
                assert self._bcm
                write(self._output / shard.name, play(self._bcm, self._job, shard))
                problem = ""
        except BcmError as error:
            problem = str(error)
        except Exception as error:  # a bug, a full disk: the other shards are none the worse for it
            problem = f"{type(error).__name__}: {error}"
        with contextlib.suppress(OSError):
            mark.unlink(missing_ok=True)
        return problem


def _tries(mark: Path) -> int:
    """How often a shard has been begun, this time included; the mark's length, so that it outlives the worker."""
    with mark.open("ab") as file:
        file.write(b".")
        return file.tell()


def open_bundle_of(job: Job, bundle: str) -> BCM:
    """The bundle, if it is the one that the job was begun with. Raises BundleError, BackendError."""
    bcm = load(bundle, job.backend, job.batch, job.precision, SIGNED)
    if bcm.bundle.hashes(job.precision) != job.bundle:
        raise BundleError(f"{bundle}: not the bundle that the job was begun with")
    return bcm


def play(bcm: BCM, job: Job, shard: Shard) -> dict[str, np.ndarray | None]:
    """The arrays of an output: images or latents float32 [n, C, H, W], seeds uint64 [n], labels int64 [n] or None.

    Every image has the seed and the label that its row tells, or else that of its number in the data set; so neither workers nor order
    change it, and batches are cut within the shard. Raises BcmError.
    """
    n = shard.stop - shard.start
    value_range = parse_value_range(job.value_range) if job.value_range else None
    given = (
        read(shard.path, shard.start, shard.stop, job.task, bcm.sample_shape, value_range)
        if shard.path
        else {}
    )
    seeds = (
        given["seeds"].tolist()
        if "seeds" in given
        else [job.seed + number for number in _numbers(shard, "seeds")]
    )
    labels = _labels(bcm, job, shard, given, seeds)
    what, values = "images", given.get("images", np.empty(0))
    if job.task == "generate":
        values = bcm.generate(
            n, schedule=job.schedule or "", seed=seeds, labels=labels, latents=given.get("latents")
        )
    elif job.task == "invert":
        what, values = "latents", bcm.invert(values, schedule=job.inversion or "", seed=seeds, labels=labels)
    elif job.task == "reconstruct":
        values = bcm.reconstruct(
            values, inversion=job.inversion or "", schedule=job.schedule or "", seed=seeds, labels=labels
        )
    else:
        values = bcm.restore(
            values, strength=job.strength or 0.0, schedule=job.schedule, seed=seeds, labels=labels
        )
    return {
        what: values,
        "seeds": np.array(seeds, np.uint64),
        "labels": None if labels is None else np.asarray(labels, np.int64),
    }


def _labels(
    bcm: BCM, job: Job, shard: Shard, given: dict[str, np.ndarray], seeds: list[int]
) -> np.ndarray | list[int] | None:
    if bcm.num_classes is None:
        return None
    if job.labels is None:
        return check_labels(given.get("labels"), shard.stop - shard.start, bcm.num_classes, bcm.classes)
    if job.labels == GUESS:
        return bcm.guess_labels(given["images"], seed=seeds)
    if len(job.labels) == 1:
        return [int(job.labels[0])] * (shard.stop - shard.start)
    return [int(job.labels[number % len(job.labels)]) for number in _numbers(shard, "labels")]


def _numbers(shard: Shard, what: str) -> range:
    """The numbers of the shard's rows in the whole data set. Raises InputError."""
    if shard.first < 0:
        raise InputError(
            f"{shard.path}: the numbers of its rows, and with them their {what}, are unknown: a file before it cannot be read"
        )
    return range(shard.first, shard.first + shard.stop - shard.start)
