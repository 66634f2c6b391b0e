"""Samples that are played together, and the division of a request into parts that one network call takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

import numpy as np

from .ahead import Ahead
from .calls import Calls

BATCH = 16  # images per network call on a processor, where the caller sets no number


@dataclass(frozen=True)
class Batch:
    """The seeds and labels of samples that are played together."""

    # One integer in [0, 2**64) per sample. All noise of a sample comes from its seed.
    seeds: Sequence[int]
    # int64 [N] for a model with classes, None for a model without.
    labels: np.ndarray | None = None
    # Draws noise on the host, also for the next part of a request. None leaves it to the backend.
    ahead: Ahead | None = None

    def __len__(self) -> int:
        """The number of samples."""
        return len(self.seeds)

    def __getitem__(self, rows: slice) -> Batch:
        """The samples of these rows."""
        labels = None if self.labels is None else self.labels[rows]
        return Batch(self.seeds[rows], labels, self.ahead)


def slices(count: int, size: int) -> list[slice]:
    """The rows 0 to count - 1 in order, at most `size` in a slice."""
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def play_in_parts(
    play: Callable[..., np.ndarray],
    size: int,
    batch: Batch,
    *arrays: np.ndarray | None,
    calls: Calls | None = None,
    axis: int = 0,
    ahead: bool = False,
) -> np.ndarray:
    """Call play(part, *rows) for at most `size` samples at a time, and return the results as one array.

    arrays: one row per sample each; None is passed as None.
    calls: reports the network calls. With it, play gets the argument after_move as well.
    axis: the axis of the samples in the results.
    ahead: whether noise for the next part is drawn in a thread while a part is played.
    """
    parts = slices(len(batch), size)
    with ExitStack() as stack:
        if ahead and len(parts) > 1:
            seeds = [batch.seeds[rows] for rows in parts]
            batch = replace(batch, ahead=stack.enter_context(Ahead(seeds)))
        return _play_parts(play, parts, batch, arrays, calls, axis)


def _play_parts(
    play: Callable[..., np.ndarray],
    parts: Sequence[slice],
    batch: Batch,
    arrays: Sequence[np.ndarray | None],
    calls: Calls | None,
    axis: int,
) -> np.ndarray:
    results = []
    for rows in parts:
        rows_of_arrays = [None if array is None else array[rows] for array in arrays]
        options = {} if calls is None else {"after_move": calls.after_move(rows)}
        results.append(play(batch[rows], *rows_of_arrays, **options))
    return np.concatenate(results, axis=axis)
