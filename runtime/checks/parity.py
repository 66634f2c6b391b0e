"""Parity: how far the results of a backend differ from a recording.

A candidate plays the schedules of the recording from the same seeds, and its state is compared after every
move. Its errors add up over a schedule, as they do for a user.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from ...errors import BackendError, NonFiniteError
from ..accuracy import relative_l2
from ..backends import backend_module, checking_backend, choose, open_backend, wrong_device
from ..backends.base import Backend, on_device
from ..batches import Batch
from ..machine.placement import ANYWHERE, Placement
from ..schedule import parse_schedule
from ..storage.bundle import Bundle
from ..storage.verdicts import Verdict
from .recording import Recording, states_of


@dataclass(frozen=True)
class MoveError:
    """The error of the state after one move of a schedule."""

    # Text of the schedule.
    schedule: str
    # Images in the batch.
    batch: int
    # Text of the move, or the message of the NonFiniteError.
    move: str
    # The largest absolute error.
    max_abs: float
    # |error| / |recorded state|, so the bound that would have been met.
    relative_l2: float
    # dB, relative to the range of the recorded state.
    psnr: float
    # Whether relative_l2 is within the bound.
    ok: bool

    @property
    def graph(self) -> str:
        """The graph that computed the move, "forward" or "inverse"; "" where it returned NaN or infinity."""
        t, separator, u = self.move.partition(">")
        if not separator or np.isinf(self.relative_l2):
            return ""
        return "inverse" if float(u) > float(t) else "forward"


def compare(backend: Backend, recording: Recording, batches: Sequence[int], bound: float) -> list[MoveError]:
    """Play the schedules of a recording at each batch size, and return the error of every move.

    batches: a batch that is larger than the recording repeats its samples. The noise of a sample
    depends on its seed only, so its states are the same in every batch.
    bound: the largest relative L2 error that is `ok`.
    """
    errors = []
    for text, expected in recording.states.items():
        for size in batches:
            rows = np.arange(size) % len(recording.seeds)
            errors += _compare_schedule(backend, recording, text, rows, expected[:, rows], bound)
    return errors


def verdict_on(
    errors: Sequence[MoveError], bundle: Bundle, backend: Backend, against: str, bound: float
) -> Verdict:
    """Return the verdict for a comparison of the bundle's graphs, played by this backend, with a recording.

    against: the reference, "torch" or "fp32".
    """
    worst = max(error.relative_l2 for error in errors)
    engine_files = backend.files if on_device(backend) else {}
    return Verdict(
        precision=backend.precision,
        backend=backend.name,
        against=against,
        ok=all(error.ok for error in errors),
        bound=bound,
        needed=worst if worst < float("inf") else None,
        schedules=list(dict.fromkeys(error.schedule for error in errors)),
        batches=sorted({error.batch for error in errors}),
        files=bundle.hashes(backend.precision) | engine_files,
    )


def checking_backends(
    name: str, bundle: Bundle, precision: str, placement: Placement = ANYWHERE
) -> list[str]:
    """Return the names of the backends on which a precision is checked.

    This is the named one. For "auto", it is the backend that rounds exactly as the graphs specify (if there
    is one for the precision) and the backend that `auto` would choose. Backends that cannot run on this
    machine, or on the device of the placement, are left out, unless none would remain.
    """
    if name != "auto":
        return [name]
    names = []
    exact = checking_backend(precision)
    if exact is not None and not (
        wrong_device(exact, placement) or backend_module(exact).unavailable(precision)
    ):
        names.append(exact)
    with suppress(BackendError):
        names.append(choose(bundle, precision, placement)[0])
    return names or ["auto"]


def check_precision(
    bundle: Bundle,
    precision: str,
    recording: Recording,
    batches: Sequence[int],
    bound: float,
    against: str,
    backend: str = "auto",
    placement: Placement = ANYWHERE,
) -> Iterator[tuple[Verdict, list[MoveError], Backend]]:
    """Compare a precision with a recording on each of `checking_backends`.

    Yields (verdict, errors, closed backend). Raises BackendError.
    """
    for name in checking_backends(backend, bundle, precision, placement):
        candidate = open_backend(name, bundle, precision, placement)
        largest = candidate.max_batch if on_device(candidate) else max(batches)
        sizes = sorted({min(size, largest) for size in batches})
        errors = compare(candidate, recording, sizes, bound)
        candidate.close()
        yield verdict_on(errors, bundle, candidate, against, bound), errors, candidate


def _compare_schedule(
    backend: Backend, recording: Recording, text: str, rows: np.ndarray, expected: np.ndarray, bound: float
) -> list[MoveError]:
    """Play one schedule on these samples of a recording, and return the error of every move."""
    schedule = parse_schedule(text)
    labels = None if recording.labels is None else recording.labels[rows]
    batch = Batch([recording.seeds[row] for row in rows], labels)
    try:
        states = states_of(schedule, backend, batch, recording.images[rows])
    except NonFiniteError as error:
        return [MoveError(text, len(rows), str(error), np.inf, np.inf, -np.inf, False)]
    errors = []
    for move, actual, truth in zip(schedule.moves, states, expected, strict=True):
        actual, truth = actual.astype(np.float64), truth.astype(np.float64)
        errors.append(_error(text, len(rows), str(move), actual, truth, bound))
    return errors


def _error(
    schedule: str, batch: int, move: str, actual: np.ndarray, truth: np.ndarray, bound: float
) -> MoveError:
    difference = actual - truth
    relative = relative_l2(actual, truth)
    rmse = float(np.sqrt(np.mean(difference**2)))
    return MoveError(
        schedule=schedule,
        batch=batch,
        move=move,
        max_abs=float(np.abs(difference).max()),
        relative_l2=relative,
        psnr=20 * float(np.log10(np.ptp(truth) / rmse)) if rmse else np.inf,
        ok=relative <= bound,
    )
