"""Noise for the next part of a request, drawn in a thread while a device computes the current part.

It is for devices that cannot draw noise themselves. The numbers are those of `Draw.values`.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from types import TracebackType

import numpy as np

from .noise import Draw

# The smallest number of values that are drawn ahead. To draw so many takes a processor about a millisecond.
WORTHWHILE = 1 << 15

_Key = tuple[tuple[int, ...], tuple[int, int, int], int, float]


class Ahead:
    """Draws noise for the parts of one request. Its thread ends with the `with` block."""

    def __init__(self, parts: Sequence[Sequence[int]]) -> None:
        """parts: the seeds of every part of the request, in order."""
        self._following = {tuple(part): tuple(following) for part, following in pairwise(parts)}
        self._pending: dict[_Key, Future[np.ndarray]] = {}
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="bcm-edge-noise")

    def __enter__(self) -> Ahead:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._executor.shutdown(cancel_futures=True)

    def values(self, draw: Draw) -> np.ndarray:
        """Return the values of a draw, float32 [N, C, H, W], and start that draw for the next part.

        It raises what the draw raised in the thread.
        """
        future = self._pending.pop(_key(draw), None)
        following = self._following.get(tuple(draw.seeds), ())
        if len(following) * int(np.prod(draw.shape)) >= WORTHWHILE:
            later = replace(draw, seeds=following)
            if _key(later) not in self._pending:
                self._pending[_key(later)] = self._executor.submit(later.values)
        return draw.values() if future is None else future.result()


def _key(draw: Draw) -> _Key:
    return tuple(draw.seeds), draw.shape, draw.number, draw.sigma
