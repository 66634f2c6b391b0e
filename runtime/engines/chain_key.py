"""What a recorded schedule is made for: its moves, its noise and its arrays on the GPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..noise import Draw
from ..schedule import Move

if TYPE_CHECKING:
    from .memory import Layout


@dataclass(frozen=True)
class Noise:
    """Noise that the GPU draws. The seeds are inputs; these numbers are part of the recording."""

    number: int  # of the draw
    sigma: float  # the standard deviation


@dataclass(frozen=True)
class ChainKey:
    """What does not change from one call of a chain to the next."""

    moves: tuple[Move, ...]
    start: Noise | None  # the noise that the schedule starts from; None if the start is an input
    added: tuple[Noise | bool, ...]  # added to the input of each move: noise, an input (True), or nothing
    shape: tuple[int, int, int, int]  # (batch size, C, H, W)
    pixels: bool  # whether the last state is also converted to pixels

    @property
    def drawn(self) -> dict[str, Noise]:
        """The noise that the GPU draws, by the name of its array."""
        noises = {"x": self.start, **{f"noise {i}": noise for i, noise in enumerate(self.added)}}
        return {name: noise for name, noise in noises.items() if isinstance(noise, Noise)}

    def input_layout(self, label_type: type | None) -> Layout:
        """Return the arrays that are copied to the GPU. label_type: None for a model without classes."""
        image = (self.shape, np.float32)
        layout: Layout = {} if self.start else {"x": image}
        layout |= {f"noise {i}": image for i, noise in enumerate(self.added) if noise is True}
        if self.drawn:
            layout["seeds"] = (self.shape[:1], np.uint64)
        if label_type is not None:
            layout["label"] = (self.shape[:1], label_type)
        return layout

    @property
    def output_layout(self) -> Layout:
        """The arrays that are copied to the host."""
        layout: Layout = {"last": (self.shape, np.float32)}
        if self.pixels:
            layout["pixels"] = (self.shape, np.uint8)
            layout["total"] = (self.shape[:1], np.float32)
        return layout


def chain_key(
    x: np.ndarray | Draw,
    moves: Sequence[Move],
    noises: Sequence[np.ndarray | Draw | None],
    shape: tuple[int, int, int, int],
    pixels: bool,
    draws: bool,
) -> ChainKey:
    """Return the key of the chain that plays these inputs.

    draws: whether the GPU draws noise. Otherwise draws are made on the host, and are inputs. So are those
    with other seeds than the first draw.
    """
    first = next((noise for noise in (x, *noises) if isinstance(noise, Draw)), None)

    def noise(value: np.ndarray | Draw | None) -> Noise | bool:
        if draws and first and isinstance(value, Draw) and list(value.seeds) == list(first.seeds):
            return Noise(value.number, value.sigma)
        return value is not None

    start = noise(x)
    added = tuple(noise(value) for value in noises)
    return ChainKey(tuple(moves), start if isinstance(start, Noise) else None, added, shape, pixels)
