"""Many threads on one opened model: what each gets is what one thread alone gets."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from agreement import assert_images_agree

import bcm_edge
from bcm_edge import BCM
from bcm_edge.errors import BackendError

THREADS = 8
ROUNDS = 5  # of each thread: a generation and, from its images, an inversion


def assert_threads_agree(bundle: Path, backend: str, precision: str) -> None:
    """Eight threads make the first moves of a model at once, and go on with batches of 1 to 4 images in both directions."""
    with bcm_edge.load(bundle, backend, precision=precision) as alone:
        expected = [_both_directions(alone, seed) for seed in range(THREADS)]
    ready = threading.Barrier(THREADS)

    def work(seed: int) -> list[list[np.ndarray]]:
        ready.wait(60)
        return [_both_directions(shared, seed) for _ in range(ROUNDS)]

    with bcm_edge.load(bundle, backend, precision=precision) as shared, ThreadPoolExecutor(THREADS) as pool:
        results = list(pool.map(work, range(THREADS)))
    assert [len(rounds) for rounds in results] == [ROUNDS] * THREADS
    for rounds, arrays in zip(results, expected, strict=True):
        for again in rounds:
            for actual, truth in zip(again, arrays, strict=True):
                assert_images_agree(actual, truth, precision)


def assert_closing_is_safe(bundle: Path, backend: str, precision: str) -> None:
    """One thread closes a model on which others play: what they have got is right, and what they ask for next is refused."""
    with bcm_edge.load(bundle, backend, precision=precision) as alone:
        expected = [_both_directions(alone, seed) for seed in range(4)]
    shared = bcm_edge.load(bundle, backend, precision=precision)
    playing = threading.Barrier(5)

    def work(seed: int) -> str:
        arrays = _both_directions(shared, seed)
        playing.wait(60)
        for _ in range(1000):
            for actual, truth in zip(arrays, expected[seed], strict=True):
                assert_images_agree(actual, truth, precision)
            try:
                arrays = _both_directions(shared, seed)
            except BackendError as error:
                return str(error)
        return "never refused"

    with ThreadPoolExecutor(4) as pool:
        ended = [pool.submit(work, seed) for seed in range(4)]
        playing.wait(60)
        shared.close()
        messages = {each.result(60) for each in ended}
    assert messages == {"this model has been closed; load the bundle again"}


def _both_directions(bcm: BCM, seed: int) -> list[np.ndarray]:
    """Images and their latents, at a batch size of 1 to 4."""
    n = 1 + seed % 4
    images = bcm.generate(n, schedule="mixture-4", seed=seed, labels=seed)
    return [images, bcm.invert(images, seed=seed, labels=seed)]
