"""Requests that a real Triton refuses, and what they change for other requests."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from agreement import assert_images_agree
from asking import Client
from sample_requests import IMAGE, LEVELS, ONE, SEEDS
from server import Server
from tritonclient.utils import InferenceServerException

from bcm_edge import BCM

NAN = np.full((1, 1, 8, 8), np.nan, np.float32)


@pytest.mark.parametrize(
    ("model", "output", "inputs", "message"),
    [
        (
            "bcm_generate",
            "result",
            {**ONE, "label": 10},
            "label 10 is out of range; this model has classes 0 to 9",
        ),
        (
            "bcm_generate",
            "result",
            {**ONE, "schedule": "nonesuch"},
            "no schedule 'nonesuch' in this bundle; give one of the names one-step",
        ),
        ("bcm_generate", "result", {**ONE, "schedule": "80>>1"}, "a noise level is missing (column 4)"),
        (
            "bcm_generate",
            "result",
            {**ONE, "schedule": "+0.07 0.07>80"},
            "starts from an image, so it cannot generate",
        ),
        (
            "bcm_generate",
            "result",
            {**ONE, "schedule": "80" + ">2>80" * 50 + ">0.002"},
            "101 network calls; this server plays up to 64",
        ),
        ("bcm_generate", "result", {**ONE, "latent": NAN}, "latents contain NaN or infinity"),
        ("bcm_invert", "latent", {**IMAGE, "image": NAN}, "images contain NaN or infinity"),
        (
            "bcm_invert",
            "latent",
            {**IMAGE, "image": np.full((1, 1, 8, 8), 3, np.float32)},
            "images must lie in [-1, 1]; these go from 3 to 3",
        ),
        ("bcm_interpolate", "result", {**IMAGE, "image_b": NAN}, "images contain NaN or infinity"),
        (
            "bcm_interpolate",
            "result",
            {**IMAGE, "image_b": IMAGE["image"], "frames": np.int32(65)},
            "frames must lie between 2 and 64",
        ),
        (
            "bcm_inpaint",
            "result",
            {**IMAGE, "mask": np.zeros((1, 8, 8), bool)},
            "the mask of image 0 is empty",
        ),
        (
            "bcm_inpaint",
            "result",
            {**IMAGE, "mask": np.ones((1, 8, 8), bool)},
            "the mask of image 0 covers the whole image",
        ),
        (
            "bcm_forward",
            "x_u",
            {**LEVELS, "t": np.float32(81)},
            "levels must lie in [0.002, 80]; these are t = 81",
        ),
        ("bcm_forward", "x_u", {**LEVELS, "u": np.float32(np.nan)}, "levels must lie in [0.002, 80]"),
        (
            "bcm_forward",
            "x_u",
            {**LEVELS, "t": np.float32(1), "u": np.float32(2)},
            "the move from 1 to 2 must be sent to the model bcm_inverse",
        ),
        ("bcm_forward", "x_u", {**LEVELS, "x": NAN}, "x and noise must be finite"),
        ("bcm_forward", "x_u", {**LEVELS, "label": -1}, "label -1 is out of range"),
        ("bcm_generate", "result", {"seed": np.uint64(1)}, "expected"),
        (
            "bcm_invert",
            "latent",
            {**IMAGE, "image": np.zeros((1, 1, 9, 8), np.float32)},
            "unexpected shape for input 'image'",
        ),
        ("bcm_invert", "latent", {**IMAGE, "image": np.zeros((1, 1, 8, 8), np.float64)}, "data-type"),
        (
            "bcm_invert",
            "latent",
            {"image": np.zeros((17, 1, 8, 8), np.float32), "seed": SEEDS[:1], "label": 1},
            "batch",
        ),
        ("bcm_invert", "nonesuch", IMAGE, "unexpected inference output 'nonesuch'"),
    ],
)
@pytest.mark.parametrize("kind", ["http", "grpc"])
def test_wrong_request_is_refused(
    server: Server, kind: str, model: str, output: str, inputs: dict[str, Any], message: str
):
    own = Client(server, kind)
    with pytest.raises(InferenceServerException) as refused:
        own.ask(model, [output], inputs)
    own.close()
    assert message in str(refused.value)
    assert refused.value.status() in ("400", "StatusCode.INVALID_ARGUMENT")


def test_wrong_request_does_not_affect_the_other_requests_of_the_batch(server: Server, bcm: BCM):
    def one(seed: int) -> Any:
        own = Client(server)
        inputs = {"seed": np.uint64(seed), "label": 99 if seed % 4 == 0 else 2}
        try:
            return own.ask("bcm_generate", ["result"], inputs)["result"][0]
        except InferenceServerException as error:
            return str(error)
        finally:
            own.close()

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(one, range(64)))
    for seed, answer in enumerate(answers):
        if seed % 4 == 0:
            assert "label 99 is out of range" in answer
        else:
            assert_images_agree(answer, bcm.generate(1, seed=seed, labels=2)[0])


def test_request_that_waits_too_long_is_refused(server: Server):
    own = Client(server)
    inputs = {**IMAGE, "image_b": IMAGE["image"], "frames": np.int32(64)}

    def one(seed: int) -> str:
        try:
            own.ask("bcm_interpolate", ["result"], inputs, timeout=1)
        except InferenceServerException as error:
            return str(error)
        return "answered"

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(one, range(48)))
    own.close()
    assert any("Request timeout expired" in answer for answer in answers)


def test_unknown_model_is_not_found(client: Client):
    with pytest.raises(InferenceServerException) as refused:
        client.ask("bcm_nonesuch", ["result"], ONE)
    assert refused.value.status() == "StatusCode.NOT_FOUND"


def test_message_of_a_long_schedule_is_short_enough_for_grpc(client: Client):
    with pytest.raises(InferenceServerException) as refused:
        client.ask("bcm_generate", ["result"], {**ONE, "schedule": "8" * 20_000})
    assert refused.value.status() == "StatusCode.INVALID_ARGUMENT"
    assert len(str(refused.value)) < 1200


def test_move_that_gives_nan_is_an_error(client: Client):
    with pytest.raises(InferenceServerException) as refused:
        client.ask("bcm_forward", ["x_u"], {**LEVELS, "x": np.full((1, 1, 8, 8), 3e38, np.float32)})
    assert refused.value.status() == "StatusCode.INTERNAL"
    assert "the move from 80 to 0.002 on backend onnxruntime gave NaN" in str(refused.value)
