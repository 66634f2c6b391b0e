"""A backend that computes nothing: a move returns its input. It is used to test the code around backends."""

from __future__ import annotations

import numpy as np

from ..machine.placement import ANYWHERE, Placement
from ..schedule import Move
from ..storage.bundle import Bundle
from ..storage.manifest import PRECISIONS
from .base import BackendInfo

INFO = BackendInfo("null", "computes nothing, for tests", "test", "none", PRECISIONS)


class NullBackend:
    """A backend whose moves return x + noise."""

    name = INFO.name
    device = "nothing is computed"

    def __init__(
        self, sample_shape: tuple[int, int, int], num_classes: int | None = None, precision: str = "fp32"
    ) -> None:
        self.precision = precision
        self.sample_shape = sample_shape
        self.num_classes = num_classes

    def play_move(
        self, x: np.ndarray, noise: np.ndarray | None, move: Move, labels: np.ndarray | None
    ) -> np.ndarray:
        """Return x + noise."""
        return x.copy() if noise is None else x + noise

    def close(self) -> None:
        """Do nothing: there is no memory to free."""


def unavailable(precision: str, bundle: Bundle | None = None, placement: Placement = ANYWHERE) -> None:
    """Return None: this backend runs everywhere."""


def open(bundle: Bundle, precision: str, placement: Placement = ANYWHERE) -> NullBackend:
    """Return a backend for samples of the shape of the bundle's model."""
    return NullBackend(bundle.manifest.model.sample_shape, bundle.manifest.model.num_classes, precision)
