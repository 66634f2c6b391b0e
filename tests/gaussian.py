"""Models whose consistency function is known: data N(0, s²) per pixel.

For such data the probability-flow ODE has the solution f(x, t, u) = x √((u² + s²) / (t² + s²)). So every
state of every schedule has a closed form, and a wrong level, order or noise gives a wrong number.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bcm_edge.runtime.noise import Draw, values
from bcm_edge.runtime.pixels import to_uint8
from bcm_edge.runtime.schedule import Move

S = 0.5
SHAPE = (1, 4, 4)
SEEDS = [7, 8, 9]


def scale(t: float, u: float) -> float:
    """Return the factor by which a move from level t to level u multiplies a state."""
    return float(np.sqrt((u * u + S * S) / (t * t + S * S)))


class GaussianBackend:
    """Exact moves for Gaussian data. `calls` lists every move, and whether noise was added before it.

    poison: a level u at which one pixel of sample 1 becomes NaN.
    """

    name = "gaussian"
    device = "pencil"
    precision = "fp32"
    sample_shape: tuple[int, int, int] = SHAPE
    num_classes: int | None = None

    def __init__(self, poison: float | None = None) -> None:
        self.calls: list[tuple[Move, bool]] = []
        self.poison = poison

    def play_move(
        self, x: np.ndarray, noise: np.ndarray | None, move: Move, labels: np.ndarray | None
    ) -> np.ndarray:
        self.calls.append((move, noise is not None))
        result = (x if noise is None else x + noise) * np.float32(scale(move.t, move.u))
        if move.u == self.poison:
            result[1, 0, 2, 2] = np.nan
        return result

    def close(self) -> None:
        pass


class ClassGaussianBackend:
    """Exact moves for ten classes of images [1, 8, 8]: class k has data N(class_mean(k), s²) per pixel.

    f(x, t, u, k) = m + (x - m) √((u² + s²) / (t² + s²)) with m = class_mean(k).
    An image is the mean of its class and a rest, and its latent keeps the rest.
    """

    name = "class-gaussian"
    device = "pencil"
    precision = "fp32"
    sample_shape: tuple[int, int, int] = (1, 8, 8)
    num_classes: int | None = 10

    def play_move(
        self, x: np.ndarray, noise: np.ndarray | None, move: Move, labels: np.ndarray | None
    ) -> np.ndarray:
        mean = class_mean(labels)
        rest = (x if noise is None else x + noise) - mean
        return (mean + rest * scale(move.t, move.u)).astype(np.float32)

    def close(self) -> None:
        pass


def class_mean(labels: np.ndarray | None) -> np.ndarray:
    """Return the mean of classes 0 to 9, -0.45 to 0.45: float32 [N, 1, 1, 1]."""
    assert labels is not None
    return ((np.asarray(labels, np.float32) - 4.5) / 10).reshape(-1, 1, 1, 1)


class GaussianDevice(GaussianBackend):
    """A device that draws on the host. `inputs` lists the x and the noises that it got."""

    max_batch, draws = 16, False

    def __init__(self) -> None:
        super().__init__()
        self.files: dict[str, str] = {}
        self.inputs: list[np.ndarray | Draw | None] = []

    def play_moves(
        self,
        x: np.ndarray | Draw,
        moves: Sequence[Move],
        noises: Sequence[np.ndarray | Draw | None],
        labels: np.ndarray | None,
        every: bool,
    ) -> np.ndarray:
        self.inputs += [x, *noises]
        states = [values(x)]
        for move, noise in zip(moves, noises, strict=True):
            states.append(self.play_move(states[-1], None if noise is None else values(noise), move, labels))
        return np.stack(states[1:])

    def play_to_pixels(
        self,
        x: np.ndarray | Draw,
        moves: Sequence[Move],
        noises: Sequence[np.ndarray | Draw | None],
        labels: np.ndarray | None,
    ) -> tuple[np.ndarray, np.ndarray]:
        (images,) = self.play_moves(x, moves, noises, labels, every=True)[-1:]
        return to_uint8(images), np.isfinite(images).all(axis=(1, 2, 3))
