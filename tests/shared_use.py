"""Many threads use one opened model. Each gets the results that one thread alone gets."""

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
ROUNDS = 5  # each thread generates, and inverts the images, this often


def assert_threads_agree(bundle: Path, backend: str, precision: str) -> None:
    """Check the results of eight threads that start at once.

    They play batches of 1 to 4 images in both directions.
    """
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
            for actual, reference in zip(again, arrays, strict=True):
                assert_images_agree(actual, reference, precision)


def assert_closing_is_safe(bundle: Path, backend: str, precision: str) -> None:
    """Check that a model can be closed while other threads use it.

    Every result that they got before is right, and their next request is refused.
    """
    with bcm_edge.load(bundle, backend, precision=precision) as alone:
        expected = [_both_directions(alone, seed) for seed in range(4)]
    shared = bcm_edge.load(bundle, backend, precision=precision)
    playing = threading.Barrier(5)

    def work(seed: int) -> str:
        arrays = _both_directions(shared, seed)
        playing.wait(60)
        for _ in range(1000):
            for actual, reference in zip(arrays, expected[seed], strict=True):
                assert_images_agree(actual, reference, precision)
            try:
                arrays = _both_directions(shared, seed)
            except BackendError as error:
                return str(error)
        return "never refused"

    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(work, seed) for seed in range(4)]
        playing.wait(60)
        shared.close()
        messages = {future.result(60) for future in futures}
    assert messages == {"this model has been closed; load the bundle again"}


def _both_directions(bcm: BCM, seed: int) -> list[np.ndarray]:
    """Return generated images and their latents, at a batch size of 1 to 4."""
    n = 1 + seed % 4
    images = bcm.generate(n, schedule="mixture-4", seed=seed, labels=seed)
    return [images, bcm.invert(images, seed=seed, labels=seed)]
