"""Noise for the next part of a request is drawn while a device computes the current part."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest
from agreement import assert_images_agree
from gaussian import SHAPE, GaussianDevice

from bcm_edge import parse_schedule
from bcm_edge.runtime import ahead, noise
from bcm_edge.runtime.batches import Batch, play_in_parts
from bcm_edge.runtime.chain import play

PROGRAM = parse_schedule("80>0.002 +0.1 0.1>1.2>0.002")
SEEDS = [5, 2**64 - 1, 7, 8, 9]
PARTS = [(5, 2**64 - 1), (7, 8), (9,)]


class Draws:
    """Records the draws: (seeds, number) → the name of the thread. `refused`: seeds whose draw fails."""

    def __init__(self) -> None:
        self.threads: dict[tuple[tuple[int, ...], int], str] = {}
        self.begun: dict[tuple[int, ...], threading.Event] = defaultdict(threading.Event)
        self.refused: tuple[int, ...] = ()
        self._standard_normal = noise.standard_normal

    def standard_normal(self, seeds: Sequence[int], shape: tuple[int, ...], draw: int) -> np.ndarray:
        """Record a draw, and make it."""
        assert (tuple(seeds), draw) not in self.threads  # nothing is drawn twice
        self.threads[tuple(seeds), draw] = threading.current_thread().name
        self.begun[tuple(seeds)].set()
        if tuple(seeds) == self.refused:
            raise MemoryError("no memory for noise")
        return self._standard_normal(seeds, shape, draw)


class WaitingDevice(GaussianDevice):
    """A device that computes a part only after the draws for the next part have begun."""

    def __init__(self, draws: Draws, broken: bool = False) -> None:
        super().__init__()
        self._draws, self._broken = draws, broken
        self._waiting = iter(PARTS[1:])

    def play_moves(self, *arguments: Any, **options: Any) -> np.ndarray:
        following = next(self._waiting, None)
        assert following is None or self._draws.begun[following].wait(60)
        if self._broken:
            raise RuntimeError("the GPU failed")
        return super().play_moves(*arguments, **options)


@pytest.fixture
def draws(monkeypatch: pytest.MonkeyPatch) -> Iterator[Draws]:
    """The draws of a test, of any size. No thread of them is left."""
    draws = Draws()
    monkeypatch.setattr(noise, "standard_normal", draws.standard_normal)
    monkeypatch.setattr(ahead, "WORTHWHILE", 1)
    yield draws
    assert not any(thread.name.startswith("bcm-edge-noise") for thread in threading.enumerate())


def test_next_part_is_drawn_while_a_part_is_computed(draws: Draws):
    images = play_in_parts(partial(play, PROGRAM, WaitingDevice(draws)), 2, Batch(SEEDS), ahead=True)
    threads = dict(draws.threads)
    assert set(threads) == {(part, number) for part in PARTS for number in (0, 1)}
    main = threading.main_thread().name
    assert {name for (part, _), name in threads.items() if part == PARTS[0]} == {main}
    assert len({name for (part, _), name in threads.items() if part != PARTS[0]} - {main}) == 1
    assert main not in {name for (part, _), name in threads.items() if part != PARTS[0]}
    draws.threads.clear()
    expected = play_in_parts(partial(play, PROGRAM, GaussianDevice()), 2, Batch(SEEDS))
    assert images.shape == (5, *SHAPE)
    assert_images_agree(images, expected)


def test_error_of_a_draw_is_raised(draws: Draws):
    draws.refused = PARTS[1]
    with pytest.raises(MemoryError, match="no memory for noise"):
        play_in_parts(partial(play, PROGRAM, WaitingDevice(draws)), 2, Batch(SEEDS), ahead=True)


def test_error_of_the_device_ends_the_thread(draws: Draws):
    with pytest.raises(RuntimeError, match="the GPU failed"):
        play_in_parts(partial(play, PROGRAM, WaitingDevice(draws, broken=True)), 2, Batch(SEEDS), ahead=True)


def test_little_noise_and_single_parts_need_no_thread(draws: Draws, monkeypatch: pytest.MonkeyPatch):
    play_in_parts(partial(play, PROGRAM, GaussianDevice()), 8, Batch(SEEDS), ahead=True)
    monkeypatch.setattr(ahead, "WORTHWHILE", 2 * 16 + 1)
    play_in_parts(partial(play, PROGRAM, GaussianDevice()), 2, Batch(SEEDS), ahead=True)
    assert set(draws.threads.values()) == {threading.main_thread().name}


def test_parts_with_the_same_seeds_have_the_same_noise(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ahead, "WORTHWHILE", 1)
    images = play_in_parts(partial(play, PROGRAM, GaussianDevice()), 2, Batch([3] * 6), ahead=True)
    assert_images_agree(images, np.repeat(images[:1], 6, axis=0))
