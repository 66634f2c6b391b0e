"""The answers of a real Triton are those of the local runtime."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from agreement import ROUNDING, assert_images_agree, assert_pixels_agree, relative_l2
from asking import WAYS, Client, column
from sample_requests import LABELS, SEEDS
from server import Server

from bcm_edge import BCM
from bcm_edge.runtime.schedule import Move

COUNTERS = ("request_success", "exec_count")
MASK = np.indices((8, 8))[0] >= 4


@pytest.fixture(scope="module", params=WAYS)
def way(request: pytest.FixtureRequest, server: Server) -> Iterator[Client]:
    """A connection over HTTP or gRPC, with and without shared memory."""
    opened = Client(server, request.param)
    yield opened
    opened.close()


def test_inversion_over_every_way(way: Client, bcm: BCM, digits: np.ndarray):
    inputs = {"image": digits, "seed": SEEDS, "label": LABELS}
    latents = way.ask("bcm_invert", ["latent"], inputs)["latent"]
    assert_images_agree(latents, bcm.invert(digits, seed=SEEDS, labels=LABELS))


def test_reconstruction_over_every_way(way: Client, bcm: BCM, digits: np.ndarray):
    inputs = {"image": digits, "seed": SEEDS, "label": LABELS}
    result = way.ask("bcm_reconstruct", ["result"], inputs)["result"]
    assert_images_agree(result, bcm.reconstruct(digits, seed=SEEDS, labels=LABELS))


def test_inpainting_over_every_way(way: Client, bcm: BCM, digits: np.ndarray):
    inputs = {"image": digits, "mask": np.repeat(MASK[None], 4, axis=0), "seed": SEEDS, "label": LABELS}
    result = way.ask("bcm_inpaint", ["result"], inputs)["result"]
    assert_images_agree(result, bcm.inpaint(digits, MASK, seed=SEEDS, labels=LABELS))


@pytest.mark.parametrize("schedule", [None, "mixture-4", "80>2.4>0.002"])
def test_generation(client: Client, bcm: BCM, schedule: str | None):
    named = {} if schedule is None else {"schedule": [schedule] * 4}
    result = client.ask("bcm_generate", ["result", "pixels"], {"seed": SEEDS, "label": LABELS, **named})
    local = {"schedule": schedule or "one-step", "seed": SEEDS, "labels": LABELS}
    assert_images_agree(result["result"], bcm.generate(4, **local))
    assert_pixels_agree(result["pixels"], bcm.generate(4, **local, output_type="uint8"))


def test_generation_from_a_latent(client: Client, bcm: BCM, digits: np.ndarray):
    latent = client.ask("bcm_invert", ["latent"], {"image": digits, "seed": SEEDS, "label": LABELS})["latent"]
    inputs = {"latent": latent, "seed": SEEDS, "label": LABELS}
    result = client.ask("bcm_generate", ["result"], inputs)["result"]
    assert_images_agree(result, bcm.generate(latents=latent, seed=SEEDS, labels=LABELS))


def test_interpolation(client: Client, bcm: BCM, digits: np.ndarray):
    frames = np.full(2, 5, np.int32)
    inputs = {
        "image": digits[:2],
        "image_b": digits[2:],
        "seed": SEEDS[:2],
        "label": LABELS[:2],
        "label_b": LABELS[2:],
        "frames": frames,
    }
    result = client.ask("bcm_interpolate", ["result"], inputs)["result"]
    assert result.shape == (2, 5, 1, 8, 8)
    local = {"seed": SEEDS[:2], "labels": LABELS[:2], "labels_b": LABELS[2:]}
    assert_images_agree(result, bcm.interpolate(digits[:2], digits[2:], frames=5, **local))


@pytest.mark.parametrize(("direction", "t", "u"), [("forward", 80, 0.002), ("inverse", 0.07, 15)])
def test_single_moves(client: Client, bcm: BCM, digits: np.ndarray, direction: str, t: float, u: float):
    noise = {"noise": digits[::-1].copy()} if direction == "inverse" else {}
    levels = {"t": np.full(4, t, np.float32), "u": np.full(4, u, np.float32)}
    inputs = {"x": digits, **noise, **levels, "label": LABELS}
    result = client.ask(f"bcm_{direction}", ["x_u"], inputs)["x_u"]
    expected = bcm.backend.play_move(digits, noise.get("noise"), Move(t, u), LABELS)
    assert relative_l2(result, expected) < ROUNDING


def test_rows_of_one_request_may_have_different_schedules(client: Client, bcm: BCM):
    names = ["one-step", "mixture-4", "one-step", "80>2.4>0.002"]
    inputs = {"seed": SEEDS, "label": LABELS, "schedule": names}
    result = client.ask("bcm_generate", ["result"], inputs)["result"]
    for i, name in enumerate(names):
        alone = bcm.generate(1, schedule=name, seed=int(SEEDS[i]), labels=int(LABELS[i]))[0]
        assert_images_agree(result[i], alone)


def test_merged_requests_of_many_clients_get_their_own_answers(server: Server, bcm: BCM):
    """There are more requests at once than instances, so Triton merges some of them."""

    def one(seed: int) -> np.ndarray:
        own = Client(server)
        inputs = {"seed": np.uint64(seed), "label": seed % 10, "schedule": "mixture-4"}
        result = own.ask("bcm_generate", ["result"], inputs)["result"]
        own.close()
        return result[0]

    before = server.figures()
    with ThreadPoolExecutor(16) as pool:
        images = list(pool.map(one, range(1000, 1096)))
    for seed, image in zip(range(1000, 1096), images, strict=True):
        alone = bcm.generate(1, schedule="mixture-4", seed=seed, labels=seed % 10)[0]
        assert_images_agree(image, alone)
    requests, runs = 0.0, 0.0
    for _ in range(1000):  # Triton counts a request a moment after its answer
        after = server.figures()
        keys = [f'nv_inference_{name}{{model="bcm_generate",version="1"}}' for name in COUNTERS]
        requests, runs = (after[key] - before[key] for key in keys)
        if requests >= 96:  # the last request of the test before may be counted here, too
            break
    assert 96 <= requests <= 97
    assert runs < 96


def test_stream_has_one_answer_per_move(client: Client, bcm: BCM):
    answers: queue.Queue[Any] = queue.Queue()
    client.raw.start_stream(lambda result, error: answers.put(error or result))
    values = {"seed": np.uint64(7), "label": 3, "schedule": "mixture-4"}
    client.raw.async_stream_infer(
        "bcm_generate_stream", [client._input(name, column(value)) for name, value in values.items()]
    )
    moves = [answers.get(timeout=30) for _ in range(4)]
    client.raw.stop_stream()
    assert [int(answer.as_numpy("move")[0, 0]) for answer in moves] == [1, 2, 3, 4]
    trace = bcm.trace("mixture-4", seed=[7], labels=3)
    assert [float(answer.as_numpy("level")[0, 0]) for answer in moves] == pytest.approx(trace.levels[1:])
    assert_images_agree(moves[-1].as_numpy("result"), bcm.generate(1, schedule="mixture-4", seed=7, labels=3))
    assert np.abs(moves[0].as_numpy("result") - moves[-1].as_numpy("result")).max() > 0.1
