"""Parity: a recording of whole schedules played by the torch model, and how far another backend strays from it.

Few-step models fail after several moves, not after one. So a recording keeps the state after every move of every schedule, and a
candidate plays the same schedules from the same seeds, each move on its own previous state. The recording lies in a bundle as
golden.npz, a self-test that needs no torch. Noise belongs to a sample, so the first rows of a recording serve every batch size.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...errors import BackendError, BundleError, NonFiniteError, ScheduleError
from ..accuracy import relative_l2
from ..backends import CHECKING, backend_module, choose, open_backend
from ..backends.base import Backend, DeviceBackend
from ..batches import Batch
from ..chain import play
from ..schedule import ONE_STEP, Schedule, parse_schedule
from ..storage.arrays import read_arrays, save_npz
from ..storage.bundle import Bundle
from ..storage.manifest import GOLDEN, ModelFacts
from ..storage.verdicts import Verdict

LARGE = 50_000_000  # parameters; beyond, playing everything takes minutes, and two schedules hold every kind of move
_STATES = (
    "states "  # golden.npz: prefix of the arrays float32 [moves, N, C, H, W], followed by the schedule's text
)


@dataclass(frozen=True)
class Recording:
    """seeds: N integers; labels: int64 [N] or None; images: float32 [N, C, H, W], what inversions start from;
    states: schedule text → float32 [moves, N, C, H, W], the state after each move."""

    seeds: list[int]
    labels: np.ndarray | None
    images: np.ndarray
    states: dict[str, np.ndarray]


@dataclass(frozen=True)
class MoveError:
    """How far one move of one schedule strayed. relative_l2 is also the tolerance that would have been needed."""

    schedule: str
    batch: int
    move: str
    max_abs: float
    relative_l2: float
    psnr: float  # dB, against the range of the recorded state
    ok: bool


def programs_to_check(schedules: Mapping[str, str], parameters: int) -> list[Schedule]:
    """What shows that a model's graphs are right: its schedules and a reconstruction; of a LARGE one mixture-4 and the reconstruction.

    schedules: name → text, with at least the names of DEFAULT_SCHEDULES.
    """
    named = {name: parse_schedule(text) for name, text in schedules.items()}
    reconstruction = named["invert-2"] + named["one-step"]
    return [named["mixture-4"], reconstruction] if parameters > LARGE else [*named.values(), reconstruction]


def batches_to_check(parameters: int) -> tuple[int, ...]:
    """Batch sizes; the same samples in each."""
    return (2,) if parameters > LARGE else (1, 2, 5)


def record(backend: Backend, schedules: Sequence[Schedule], size: int) -> Recording:
    """Play schedules on `size` samples with seeds 0, 1, … and labels spread over the classes."""
    seeds = list(range(size))
    classes = backend.num_classes
    labels = None if classes is None else np.linspace(0, classes - 1, size).astype(np.int64)
    images = np.clip(play(ONE_STEP, backend, Batch(seeds, labels)), -1, 1)
    states = {str(s): _states(backend, s, seeds, labels, images) for s in schedules}
    return Recording(seeds, labels, images, states)


def compare(backend: Backend, recording: Recording, batches: Sequence[int], bound: float) -> list[MoveError]:
    """Play the recording's schedules at each batch size; `ok` where the relative L2 error stays within the bound.

    A batch larger than the recording holds its samples several times: noise belongs to a sample, so their states are known.
    """
    errors = []
    for text, expected in recording.states.items():
        schedule = parse_schedule(text)
        for n in batches:
            rows = np.arange(n) % len(recording.seeds)
            labels = None if recording.labels is None else recording.labels[rows]
            try:
                states = _states(
                    backend, schedule, [recording.seeds[row] for row in rows], labels, recording.images[rows]
                )
            except NonFiniteError as error:
                errors.append(MoveError(text, n, str(error), np.inf, np.inf, -np.inf, False))
                continue
            for move, state, truth in zip(schedule.moves, states, expected[:, rows], strict=True):
                errors.append(
                    _error(text, n, str(move), state.astype(np.float64), truth.astype(np.float64), bound)
                )
    return errors


def verdict_on(
    errors: Sequence[MoveError], bundle: Bundle, backend: Backend, against: str, bound: float
) -> Verdict:
    """The verdict of a comparison of the bundle's graphs, as played by this backend."""
    worst = max(error.relative_l2 for error in errors)
    schedules = list(dict.fromkeys(error.schedule for error in errors))
    batches = sorted({error.batch for error in errors})
    needed = worst if worst < float("inf") else None
    files = bundle.hashes(backend.precision) | (backend.files if isinstance(backend, DeviceBackend) else {})
    return Verdict(
        backend.precision,
        backend.name,
        against,
        all(e.ok for e in errors),
        bound,
        needed,
        schedules,
        batches,
        files,
    )


def checking_backends(name: str, bundle: Bundle, precision: str) -> list[str]:
    """Names of the backends to check a precision on: the one named; for "auto" the one that computes just what the graphs say, where
    that is another, and the one that `auto` would play on. What cannot run here is left out, unless nothing is left."""
    if name != "auto":
        return [name]
    able = (
        [CHECKING[precision]]
        if precision in CHECKING and backend_module(CHECKING[precision]).unavailable(precision) is None
        else []
    )
    with suppress(BackendError):
        able.append(choose(bundle, precision)[0])
    return able or ["auto"]


def check_precision(
    bundle: Bundle,
    precision: str,
    recording: Recording,
    batches: Sequence[int],
    bound: float,
    against: str,
    backend: str = "auto",
) -> Iterator[tuple[Verdict, list[MoveError], Backend]]:
    """(verdict, what was measured, the closed backend) for every backend that the precision is checked on. Raises BackendError."""
    for name in checking_backends(backend, bundle, precision):
        candidate = open_backend(name, bundle, precision)
        most = candidate.max_batch if isinstance(candidate, DeviceBackend) else max(batches)
        errors = compare(candidate, recording, sorted({min(n, most) for n in batches}), bound)
        candidate.close()
        yield verdict_on(errors, bundle, candidate, against, bound), errors, candidate


def save_recording(recording: Recording, path: Path) -> None:
    """Write golden.npz."""
    states = {_STATES + text: array for text, array in recording.states.items()}
    save_npz(
        path,
        {
            "seeds": np.array(recording.seeds, np.uint64),
            "labels": recording.labels,
            "images": recording.images,
            **states,
        },
    )


def load_recording(bundle: Bundle) -> Recording:
    """The recording of a bundle. Raises BundleError if it has none, or one that does not fit the model."""
    path = bundle.path / GOLDEN
    if GOLDEN not in bundle.manifest.files:
        raise BundleError(
            f"{bundle.path}: has no {GOLDEN} to verify against; export without --no-verify puts one there"
        )
    arrays = read_arrays(path, "images")
    try:
        states = {
            name.removeprefix(_STATES): array for name, array in arrays.items() if name.startswith(_STATES)
        }
        recording = Recording(
            [int(s) for s in arrays["seeds"]], arrays.get("labels"), arrays["images"], states
        )
        fits = _fits(recording, bundle.manifest.model)
    except (KeyError, TypeError, ValueError, ScheduleError) as error:
        raise BundleError(f"{path}: not a recording ({error})") from error
    if not fits:
        raise BundleError(f"{path}: not a recording of this model")
    return recording


def _fits(recording: Recording, model: ModelFacts) -> bool:
    """Whether every array has the shape that playing the schedules on this model gives."""
    n, labels = len(recording.seeds), recording.labels
    shape = (n, *model.sample_shape)
    labelled = (
        labels is None
        if model.num_classes is None
        else labels is not None and labels.shape == (n,) and labels.dtype == np.int64
    )
    in_range = (
        labels is None
        or model.num_classes is None
        or (labels.min(initial=0) >= 0 and labels.max(initial=0) < model.num_classes)
    )
    arrays = [recording.images, *recording.states.values()]
    whole = all(array.dtype == np.float32 and np.isfinite(array).all() for array in arrays)
    played = all(
        array.shape == (parse_schedule(text).nfe, *shape) for text, array in recording.states.items()
    )
    seeded = all(0 <= seed < 2**64 for seed in recording.seeds)
    return bool(
        n
        and seeded
        and recording.states
        and labelled
        and in_range
        and whole
        and played
        and recording.images.shape == shape
    )


def _states(
    backend: Backend, schedule: Schedule, seeds: Sequence[int], labels: np.ndarray | None, images: np.ndarray
) -> np.ndarray:
    states: list[np.ndarray] = []
    x = images if schedule.from_image else None
    play(
        schedule, backend, Batch(seeds, labels), x, on_move=lambda _index, _move, state: states.append(state)
    )
    return np.stack(states)


def _error(
    schedule: str, batch: int, move: str, state: np.ndarray, truth: np.ndarray, bound: float
) -> MoveError:
    difference = state - truth
    relative = relative_l2(state, truth)
    rmse = float(np.sqrt(np.mean(difference**2)))
    psnr = 20 * float(np.log10(np.ptp(truth) / rmse)) if rmse else np.inf
    return MoveError(
        schedule, batch, move, float(np.abs(difference).max()), relative, psnr, relative <= bound
    )
