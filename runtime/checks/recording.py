"""Recordings of whole schedules, played by the torch model: the reference for every other backend.

Errors of a few-step model grow over several moves. So a recording contains the state after every move of
every schedule. A bundle contains it as golden.npz, so it can be verified without torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...errors import BundleError, ScheduleError
from ..backends.base import Backend
from ..batches import Batch
from ..chain import play
from ..schedule import ONE_STEP, Move, Schedule, parse_schedule
from ..storage.arrays import read_arrays, save_npz
from ..storage.bundle import Bundle
from ..storage.manifest import GOLDEN, ModelFacts

# Weights. For larger models, only the two schedules that contain every kind of move are played: all of them
# would take minutes.
LARGE = 50_000_000
_STATES = "states "  # golden.npz: the names of the arrays of states are this and the text of the schedule


@dataclass(frozen=True)
class Recording:
    """The states after all moves of some schedules, as a reference model computed them."""

    # N integers, one per sample.
    seeds: list[int]
    # int64 [N], or None for a model without classes.
    labels: np.ndarray | None
    # float32 [N, C, H, W] in [-1, 1], the images that inversions start from.
    images: np.ndarray
    # Text of a schedule → float32 [moves, N, C, H, W], the state after each move.
    states: dict[str, np.ndarray]


def programs_to_check(schedules: Mapping[str, str], parameters: int) -> list[Schedule]:
    """Return the schedules on which the graphs of a model are checked.

    These are all its schedules and a reconstruction; for a LARGE model, mixture-4 and the reconstruction.

    schedules: name → text, with at least the names of DEFAULT_SCHEDULES. parameters: weights of the model.
    """
    parsed = {name: parse_schedule(text) for name, text in schedules.items()}
    reconstruction = parsed["invert-2"] + parsed["one-step"]
    if parameters > LARGE:
        return [parsed["mixture-4"], reconstruction]
    return [*parsed.values(), reconstruction]


def batches_to_check(parameters: int) -> tuple[int, ...]:
    """Return the batch sizes on which a model is checked, each with the same samples."""
    return (2,) if parameters > LARGE else (1, 2, 5)


def record(backend: Backend, schedules: Sequence[Schedule], size: int) -> Recording:
    """Play schedules on `size` samples, with the seeds 0, 1, … and labels spread over the classes."""
    seeds = list(range(size))
    classes = backend.num_classes
    labels = None if classes is None else np.linspace(0, classes - 1, size).astype(np.int64)
    batch = Batch(seeds, labels)
    images = np.clip(play(ONE_STEP, backend, batch), -1, 1)
    states = {str(schedule): states_of(schedule, backend, batch, images) for schedule in schedules}
    return Recording(seeds, labels, images, states)


def states_of(schedule: Schedule, backend: Backend, batch: Batch, images: np.ndarray) -> np.ndarray:
    """Return the state after each move of a schedule, float32 [moves, N, C, H, W].

    images: float32 [N, C, H, W], from which a schedule starts that begins at an image.
    """
    states: list[np.ndarray] = []

    def keep(_move: Move, state: np.ndarray) -> None:
        states.append(state)

    play(schedule, backend, batch, images if schedule.from_image else None, after_move=keep)
    return np.stack(states)


def save_recording(recording: Recording, path: Path) -> None:
    """Write golden.npz."""
    arrays: dict[str, np.ndarray | None] = {
        "seeds": np.array(recording.seeds, np.uint64),
        "labels": recording.labels,
        "images": recording.images,
    }
    for text, states in recording.states.items():
        arrays[_STATES + text] = states
    save_npz(path, arrays)


def load_recording(bundle: Bundle) -> Recording:
    """Return the recording of a bundle. Raises BundleError if it has none, or one of another model."""
    path = bundle.path / GOLDEN
    if GOLDEN not in bundle.manifest.files:
        raise BundleError(
            f"{bundle.source}: has no {GOLDEN} to verify against; export again without --no-verify"
        )
    arrays = read_arrays(path, "images")
    states = {name.removeprefix(_STATES): array for name, array in arrays.items() if name.startswith(_STATES)}
    try:
        seeds = [int(seed) for seed in arrays["seeds"]]
        recording = Recording(seeds, arrays.get("labels"), arrays["images"], states)
        fits = _fits(recording, bundle.manifest.model)
    except (KeyError, TypeError, ValueError, ScheduleError) as error:
        raise BundleError(f"{path}: not a recording ({error})") from error
    if not fits:
        raise BundleError(f"{path}: not a recording of this model")
    return recording


def _fits(recording: Recording, model: ModelFacts) -> bool:
    """Return whether the recording is complete and could have been made with this model."""
    samples = len(recording.seeds)
    shape = (samples, *model.sample_shape)
    if not samples or not recording.states or recording.images.shape != shape:
        return False
    if not all(0 <= seed < 2**64 for seed in recording.seeds):
        return False
    if not _labels_fit(recording.labels, samples, model.num_classes):
        return False
    for array in (recording.images, *recording.states.values()):
        if array.dtype != np.float32 or not np.isfinite(array).all():
            return False
    return all(
        states.shape == (parse_schedule(text).nfe, *shape) for text, states in recording.states.items()
    )


def _labels_fit(labels: np.ndarray | None, samples: int, num_classes: int | None) -> bool:
    if labels is None or num_classes is None:
        return labels is None and num_classes is None
    if labels.shape != (samples,) or labels.dtype != np.int64:
        return False
    return labels.min(initial=0) >= 0 and labels.max(initial=0) < num_classes
