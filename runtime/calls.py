"""The network calls of a method of BCM, as they are reported to its argument on_move."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from .schedule import Move

# after_move(move, state): called after a move with its result, float32 [N, C, H, W].
AfterMove = Callable[[Move, np.ndarray], None]


@dataclass(frozen=True)
class NetworkCall:
    """One network call of a method of `BCM`, which passes it to `on_move` after the call.

    Attributes:
        index: The number of the call, from 0 to total - 1. It counts all calls of the method: inversion and
            generation, all parts of a large request, and the calls that guess labels.
        total: The number of network calls that the method makes.
        move: The noise levels before and after the call.
        state: The result of the call, float32 [n, C, H, W], read-only. An image if move.u is 0.002, else a
            noisy state.
        rows: The images of this call, as a slice of the inputs of the method. `interpolate` and `variations`
            have more results than inputs: when they generate, it is a slice of all results.
    """

    index: int
    total: int
    move: Move
    state: np.ndarray
    rows: slice


OnMove = Callable[[NetworkCall], None]


class Calls:
    """Counts the network calls of one method, and reports each to on_move."""

    def __init__(self, on_move: OnMove | None, total: int) -> None:
        """total: the number of network calls that the method will make.

        Raises InputError if on_move cannot be called.
        """
        if on_move is not None and not callable(on_move):
            raise InputError(f"on_move must be a function of one argument, not {type(on_move).__name__}")
        self._on_move = on_move
        self._total = total
        self._made = 0

    def after_move(self, rows: slice) -> AfterMove | None:
        """Return what is called after every move of these rows; None without on_move."""
        on_move = self._on_move
        if on_move is None:
            return None

        def report(move: Move, state: np.ndarray) -> None:
            index = self._made
            self._made += 1
            shown = state.view()
            shown.flags.writeable = False  # the next call continues from the state
            on_move(NetworkCall(index, self._total, move, shown, rows))

        return report
