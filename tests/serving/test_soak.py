"""Many clients send requests of every kind: no answer is lost, wrong, or given to another request.

BCM_EDGE_SOAK_SECONDS is the duration; `make test-slow` sets it to 60.
"""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import pytest
from asking import Client
from server import Server
from tritonclient.utils import InferenceServerException

from bcm_edge import BCM

CLIENTS = 16
LEAST = 50  # requests of each client, even on a slow machine
SECONDS = float(os.environ.get("BCM_EDGE_SOAK_SECONDS", "8"))
SCHEDULES = ("one-step", "ancestral-2", "mixture-4")

pytestmark = pytest.mark.timeout(600 + SECONDS)


class Question(NamedTuple):
    """A request, and its answer or a part of its error message."""

    model: str
    output: str
    inputs: dict[str, Any]
    expected: np.ndarray | str


def questions(bcm: BCM, digits: np.ndarray) -> list[Question]:
    """Return requests with 1 to 3 samples each."""
    mask = np.indices((8, 8))[0] >= 4
    requests: list[Question] = []
    for k in range(12):
        n, name = k % 3 + 1, SCHEDULES[k % 3]
        seeds = np.arange(n, dtype=np.uint64) + 10 * k
        labels, images = (np.arange(n) + k) % 10, digits[:n]
        reversed_images = images[::-1].copy()
        local = {"seed": seeds, "labels": labels}
        inputs = {"seed": seeds, "label": labels}
        with_image = {**inputs, "image": images}
        named = {**inputs, "schedule": [name] * n}
        masked = {**with_image, "mask": np.repeat(mask[None], n, 0)}
        pair = {**with_image, "image_b": reversed_images, "frames": np.full(n, 3, np.int32)}
        path = bcm.interpolate(images, reversed_images, frames=3, **local)
        requests += [
            Question("generate", "result", named, bcm.generate(n, schedule=name, **local)),
            Question("invert", "latent", with_image, bcm.invert(images, **local)),
            Question("reconstruct", "result", with_image, bcm.reconstruct(images, **local)),
            Question("inpaint", "result", masked, bcm.inpaint(images, mask, **local)),
            Question("interpolate", "result", pair, path),
            Question("generate", "result", {**inputs, "label": labels + 10}, "is out of range"),
            Question("invert", "latent", {**inputs, "image": images * np.nan}, "must be finite"),
        ]
    return requests


def test_no_answer_is_lost_or_wrong(server: Server, bcm: BCM, digits: np.ndarray):
    requests = questions(bcm, digits)
    before = server.figures()
    until = time.monotonic() + SECONDS

    def client(number: int) -> Counter[str]:
        own, random_choice = Client(server, ("grpc", "http")[number % 2]), random.Random(number)
        counts = Counter[str]()
        while time.monotonic() < until or counts.total() < LEAST:
            model, output, inputs, expected = random_choice.choice(requests)
            try:
                answer = own.ask(f"bcm_{model}", [output], inputs)[output]
                assert not isinstance(expected, str), f"{model} answered a request that it must refuse"
                assert np.abs(answer - expected).max() <= 1e-4, f"{model} gave a wrong answer"
                counts[f"bcm_{model}"] += 1
            except InferenceServerException as error:
                assert isinstance(expected, str), error
                assert expected in str(error), error
                counts[f"bcm_{model}, refused"] += 1
        own.close()
        return counts

    with ThreadPoolExecutor(CLIENTS) as pool:
        total = sum(pool.map(client, range(CLIENTS)), Counter[str]())
    after = server.figures()
    print(f"{total.total()} requests of {CLIENTS} clients in {SECONDS:g} s: {dict(total)}")
    for model in ("generate", "invert", "reconstruct", "inpaint", "interpolate"):
        # Triton counts the requests that a model refuses as successful, too.
        key = f'nv_inference_request_success{{model="bcm_{model}",version="1"}}'
        assert after[key] - before[key] == total[f"bcm_{model}"] + total[f"bcm_{model}, refused"]
        assert total[f"bcm_{model}"] > 10
    assert total["bcm_generate, refused"] > 10 and total["bcm_invert, refused"] > 10
