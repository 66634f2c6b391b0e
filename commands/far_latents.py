"""Notes about latents that are far from noise."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..runtime.calls import NetworkCall, OnMove
from ..runtime.schedule import SIGMA_MAX
from ..runtime.tasks.latents import DEVIATIONS, LARGEST_MEAN, far_from_noise
from ..runtime.wording import counted, listed
from .console import note


def note_latents(latents: np.ndarray, names: Sequence[str], advice: str) -> list[str]:
    """Return the names of latents that are far from noise. A note with the advice lists them."""
    far = [name for name, is_far in zip(names, far_from_noise(latents), strict=True) if is_far]
    if far:
        smallest, largest = DEVIATIONS
        note(
            f"far from noise: {listed(far)} ({len(far)} of {counted(len(latents), 'latent')} with a standard "
            f"deviation outside {smallest} to {largest}, or a mean beyond ±{LARGEST_MEAN}); {advice}"
        )
    return far


class Inverted:
    """Collects the latents of images while a method of BCM inverts them and generates others from them."""

    def __init__(self, names: Sequence[str], calls: int, period: int) -> None:
        """names: those of the images, in the order in which they are inverted.

        calls: the number of network calls of an inversion.
        period: the number of network calls from one batch to the next.
        """
        self._names = names
        self._calls = calls
        self._period = period
        self._latents: list[np.ndarray] = []

    def watching(self, on_move: OnMove | None) -> OnMove:
        """Return the argument on_move for the method. on_move: is called as well."""

        def watch(call: NetworkCall) -> None:
            if call.index % self._period == self._calls - 1 and len(self._latents) < len(self._names):
                self._latents.extend(call.state / np.float32(SIGMA_MAX))
            if on_move:
                on_move(call)

        return watch

    def note(self) -> list[str]:
        """Return the names of images whose latents are far from noise. A note lists them."""
        advice = (
            "the result may be poor: the label may be wrong, or the image unlike the training data, such as "
            "a negative"
        )
        return note_latents(np.stack(self._latents), self._names, advice)
