"""Many clients for a while, with requests of every kind: nothing is lost, nothing mixed up, nothing wrong let through.

BCM_EDGE_SOAK_SECONDS tells how long; `make test-slow` takes 60.
"""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from asking import Client
from server import Server
from tritonclient.utils import InferenceServerException

from bcm_edge import BCM

CLIENTS = 16
LEAST = 50  # requests of each client, however slow the machine is
SECONDS = float(os.environ.get("BCM_EDGE_SOAK_SECONDS", "8"))
SCHEDULES = ("one-step", "ancestral-2", "mixture-4")

pytestmark = pytest.mark.timeout(600 + SECONDS)


def questions(bcm: BCM, digits: np.ndarray) -> list[tuple[str, str, dict[str, Any], np.ndarray | str]]:
    """(model, output, inputs, the answer or a part of the refusal): 1 to 3 samples each."""
    asked: list[tuple[str, str, dict[str, Any], np.ndarray | str]] = []
    mask = np.indices((8, 8))[0] >= 4
    for k in range(12):
        n = k % 3 + 1
        seeds, labels, images, name = (
            np.arange(n, dtype=np.uint64) + 10 * k,
            (np.arange(n) + k) % 10,
            digits[:n],
            SCHEDULES[k % 3],
        )
        given = {"seed": seeds, "label": labels}
        asked += [
            (
                "generate",
                "result",
                {**given, "schedule": [name] * n},
                bcm.generate(n, schedule=name, seed=seeds, labels=labels),
            ),
            ("invert", "latent", {**given, "image": images}, bcm.invert(images, seed=seeds, labels=labels)),
            (
                "reconstruct",
                "result",
                {**given, "image": images},
                bcm.reconstruct(images, seed=seeds, labels=labels),
            ),
            (
                "inpaint",
                "result",
                {**given, "image": images, "mask": np.repeat(mask[None], n, 0)},
                bcm.inpaint(images, mask, seed=seeds, labels=labels),
            ),
            ("generate", "result", {**given, "label": labels + 10}, "is out of range"),
            ("invert", "latent", {**given, "image": images * np.nan}, "must be finite"),
        ]
        path = bcm.interpolate(images, images[::-1], frames=3, seed=seeds, labels=labels)
        asked.append(
            (
                "interpolate",
                "result",
                {**given, "image": images, "image_b": images[::-1].copy(), "frames": np.full(n, 3, np.int32)},
                path,
            )
        )
    return asked


def test_nothing_is_lost_or_mixed_up(server: Server, bcm: BCM, digits: np.ndarray):
    asked = questions(bcm, digits)
    before = server.figures()
    until = time.monotonic() + SECONDS

    def client(number: int) -> Counter[str]:
        own, chosen, counted = (
            Client(server, ("grpc", "http")[number % 2]),
            random.Random(number),
            Counter[str](),
        )
        while time.monotonic() < until or sum(counted.values()) < LEAST:
            model, output, given, wanted = chosen.choice(asked)
            try:
                found = own.ask(f"bcm_{model}", [output], given)[output]
                assert not isinstance(wanted, str), f"{model} answered what it should have refused"
                assert np.abs(found - wanted).max() <= 1e-4, f"{model} answered something else"
                counted[f"bcm_{model}"] += 1
            except InferenceServerException as error:
                assert isinstance(wanted, str) and wanted in str(error), error
                counted[f"bcm_{model}, refused"] += 1
        own.close()
        return counted

    with ThreadPoolExecutor(CLIENTS) as pool:
        total = sum(pool.map(client, range(CLIENTS)), Counter[str]())
    after = server.figures()
    print(f"{sum(total.values())} requests of {CLIENTS} clients in {SECONDS:g} s: {dict(total)}")
    for model in ("generate", "invert", "reconstruct", "inpaint", "interpolate"):
        key = f'nv_inference_request_success{{model="bcm_{model}",version="1"}}'  # Triton counts what a model refuses among them
        assert after[key] - before[key] == total[f"bcm_{model}"] + total[f"bcm_{model}, refused"]
        assert total[f"bcm_{model}"] > 10
    assert total["bcm_generate, refused"] > 10 and total["bcm_invert, refused"] > 10
