"""A real Triton on a repository: its answers are those of the local runtime, and what it cannot answer it says why."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from agreement import ROUNDING, assert_images_agree, assert_pixels_agree, relative_l2
from asking import WAYS, Client, column
from PIL import Image
from server import Server, running
from tritonclient.utils import InferenceServerException

from bcm_edge import BCM
from bcm_edge.runtime.schedule import Move

LABELS = np.array([3, 1, 4, 1])
SEEDS = np.array([5, 9, 2, 6], np.uint64)
NAN = np.full((1, 1, 8, 8), np.nan, np.float32)
MASK = np.indices((8, 8))[0] >= 4


@pytest.fixture(scope="module", params=WAYS)
def way(request: pytest.FixtureRequest, server: Server):
    opened = Client(server, request.param)
    yield opened
    opened.close()


def test_inversion_over_every_way(way: Client, bcm: BCM, digits: np.ndarray):
    given = {"image": digits, "seed": SEEDS, "label": LABELS}
    latents = way.ask("bcm_invert", ["latent"], given)["latent"]
    assert_images_agree(latents, bcm.invert(digits, seed=SEEDS, labels=LABELS))


def test_reconstruction_over_every_way(way: Client, bcm: BCM, digits: np.ndarray):
    given = {"image": digits, "seed": SEEDS, "label": LABELS}
    result = way.ask("bcm_reconstruct", ["result"], given)["result"]
    assert_images_agree(result, bcm.reconstruct(digits, seed=SEEDS, labels=LABELS))


def test_holes_over_every_way(way: Client, bcm: BCM, digits: np.ndarray):
    given = {"image": digits, "mask": np.repeat(MASK[None], 4, axis=0), "seed": SEEDS, "label": LABELS}
    result = way.ask("bcm_inpaint", ["result"], given)["result"]
    assert_images_agree(result, bcm.inpaint(digits, MASK, seed=SEEDS, labels=LABELS))


@pytest.mark.parametrize("schedule", [None, "mixture-4", "80>2.4>0.002"])
def test_generation(client: Client, bcm: BCM, schedule: str | None):
    named = {} if schedule is None else {"schedule": [schedule] * 4}
    found = client.ask("bcm_generate", ["result", "pixels"], {"seed": SEEDS, "label": LABELS, **named})
    local = {"schedule": schedule or "one-step", "seed": SEEDS, "labels": LABELS}
    assert_images_agree(found["result"], bcm.generate(4, **local))
    assert_pixels_agree(found["pixels"], bcm.generate(4, **local, uint8=True))


def test_a_latent_comes_back_as_its_image(client: Client, bcm: BCM, digits: np.ndarray):
    latent = client.ask("bcm_invert", ["latent"], {"image": digits, "seed": SEEDS, "label": LABELS})["latent"]
    found = client.ask("bcm_generate", ["result"], {"latent": latent, "seed": SEEDS, "label": LABELS})[
        "result"
    ]
    assert_images_agree(found, bcm.generate(latents=latent, seed=SEEDS, labels=LABELS))


def test_interpolation(client: Client, bcm: BCM, digits: np.ndarray):
    frames = np.full(2, 5, np.int32)
    given = {
        "image": digits[:2],
        "image_b": digits[2:],
        "seed": SEEDS[:2],
        "label": LABELS[:2],
        "label_b": LABELS[2:],
        "frames": frames,
    }
    found = client.ask("bcm_interpolate", ["result"], given)["result"]
    assert found.shape == (2, 5, 1, 8, 8)
    local = {"seed": SEEDS[:2], "labels": LABELS[:2], "labels_b": LABELS[2:]}
    assert_images_agree(found, bcm.interpolate(digits[:2], digits[2:], frames=5, **local))


@pytest.mark.parametrize(("direction", "t", "u"), [("forward", 80, 0.002), ("inverse", 0.07, 15)])
def test_single_moves(client: Client, bcm: BCM, digits: np.ndarray, direction: str, t: float, u: float):
    noise = {"noise": digits[::-1].copy()} if direction == "inverse" else {}
    levels = {"t": np.full(4, t, np.float32), "u": np.full(4, u, np.float32)}
    found = client.ask(f"bcm_{direction}", ["x_u"], {"x": digits, **noise, **levels, "label": LABELS})["x_u"]
    moved = bcm.backend.play_move(digits, noise.get("noise"), Move(t, u), LABELS)
    assert relative_l2(found, moved) < ROUNDING


def test_rows_of_one_request_may_want_different_programs(client: Client, bcm: BCM):
    names = ["one-step", "mixture-4", "one-step", "80>2.4>0.002"]
    found = client.ask("bcm_generate", ["result"], {"seed": SEEDS, "label": LABELS, "schedule": names})[
        "result"
    ]
    for i, name in enumerate(names):
        alone = bcm.generate(1, schedule=name, seed=int(SEEDS[i]), labels=int(LABELS[i]))[0]
        assert_images_agree(found[i], alone)


def test_requests_of_many_clients_share_calls_and_stay_apart(server: Server, bcm: BCM):
    """More requests at once than instances, so that Triton merges some of them."""

    def one(seed: int) -> np.ndarray:
        own = Client(server)
        found = [
            own.ask(
                "bcm_generate",
                ["result"],
                {"seed": np.uint64(seed), "label": seed % 10, "schedule": "mixture-4"},
            )["result"]
        ]
        own.close()
        return found[0][0]

    before = server.figures()
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(one, range(1000, 1096)))
    wanted = [
        bcm.generate(1, schedule="mixture-4", seed=seed, labels=seed % 10)[0] for seed in range(1000, 1096)
    ]
    assert_images_agree(found, wanted)
    requests, runs = 0.0, 0.0
    for _ in range(1000):  # Triton counts a request a moment after it has answered it
        after = server.figures()
        key = 'nv_inference_{}{{model="bcm_generate",version="1"}}'
        requests, runs = (
            after[key.format(name)] - before[key.format(name)] for name in ("request_success", "exec_count")
        )
        if requests >= 96:  # or one more: the last request of the test before may be counted here
            break
    assert 96 <= requests <= 97
    assert runs < 96


def test_a_stream_shows_every_move(client: Client, bcm: BCM):
    answers: queue.Queue[Any] = queue.Queue()
    client.raw.start_stream(lambda result, error: answers.put(error or result))
    values = {"seed": np.uint64(7), "label": 3, "schedule": "mixture-4"}
    client.raw.async_stream_infer(
        "bcm_generate_stream", [client._input(name, column(value)) for name, value in values.items()]
    )
    shown = [answers.get(timeout=30) for _ in range(4)]
    client.raw.stop_stream()
    assert [int(answer.as_numpy("move")[0, 0]) for answer in shown] == [1, 2, 3, 4]
    trace = bcm.trace("mixture-4", seed=[7], labels=3)
    assert [float(answer.as_numpy("level")[0, 0]) for answer in shown] == pytest.approx(trace.levels[1:])
    assert_images_agree(shown[-1].as_numpy("result"), bcm.generate(1, schedule="mixture-4", seed=7, labels=3))
    assert np.abs(shown[0].as_numpy("result") - shown[-1].as_numpy("result")).max() > 0.1


ONE = {"seed": np.uint64(1), "label": 1}
IMAGE = {"image": np.full((1, 1, 8, 8), -1, np.float32), **ONE}
LEVELS = {"x": np.zeros((1, 1, 8, 8), np.float32), "t": np.float32(80), "u": np.float32(0.002), "label": 1}


@pytest.mark.parametrize(
    ("model", "output", "given", "message"),
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
            "no schedule 'nonesuch' in this bundle; it has one-step",
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
        ("bcm_generate", "result", {**ONE, "latent": NAN}, "latents must be finite floats"),
        ("bcm_invert", "latent", {**IMAGE, "image": NAN}, "images must be finite floats"),
        (
            "bcm_invert",
            "latent",
            {**IMAGE, "image": np.full((1, 1, 8, 8), 3, np.float32)},
            "images must lie in [-1, 1]; these go from 3 to 3",
        ),
        ("bcm_interpolate", "result", {**IMAGE, "image_b": NAN}, "images must be finite"),
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
            "the move from 1 to 2 must be sent to bcm_inverse",
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
def test_what_cannot_be_answered_is_refused(
    server: Server, kind: str, model: str, output: str, given: dict[str, Any], message: str
):
    own = Client(server, kind)
    with pytest.raises(InferenceServerException) as refused:
        own.ask(model, [output], given)
    own.close()
    assert message in str(refused.value)
    assert refused.value.status() in ("400", "StatusCode.INVALID_ARGUMENT")


def test_a_bad_request_costs_its_company_nothing(server: Server, bcm: BCM):
    def one(seed: int) -> Any:
        own = Client(server)
        try:
            return own.ask(
                "bcm_generate", ["result"], {"seed": np.uint64(seed), "label": 99 if seed % 4 == 0 else 2}
            )["result"][0]
        except InferenceServerException as error:
            return str(error)
        finally:
            own.close()

    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(one, range(64)))
    for seed, answer in enumerate(found):
        if seed % 4 == 0:
            assert "label 99 is out of range" in answer
        else:
            assert_images_agree(answer, bcm.generate(1, seed=seed, labels=2)[0])


def test_a_request_that_waits_too_long_is_refused(server: Server):
    own = Client(server)

    def one(seed: int) -> str:
        try:
            own.ask(
                "bcm_interpolate",
                ["result"],
                {**IMAGE, "image_b": IMAGE["image"], "frames": np.int32(64)},
                timeout=1,
            )
        except InferenceServerException as error:
            return str(error)
        return "answered"

    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(one, range(48)))
    own.close()
    assert any("Request timeout expired" in answer for answer in found)


def by_client(server: Server, repository: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """client.py of a repository as a process."""
    command = [
        sys.executable,
        repository / "client.py",
        "--url",
        f"http://{server.http}",
        *map(str, arguments),
    ]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)


def test_the_client_of_a_repository_fetches_a_picture(
    server: Server, repository: Path, bcm: BCM, tmp_path: Path
):
    done = by_client(
        server, repository, "--seed", 7, "--label", 3, "--schedule", "mixture-4", "-o", tmp_path / "three.png"
    )
    assert (done.returncode, done.stdout) == (0, f"{tmp_path}/three.png\n")
    wanted = bcm.generate(1, seed=7, labels=3, schedule="mixture-4", uint8=True)[0, 0]
    assert_pixels_agree(Image.open(tmp_path / "three.png"), wanted)
    refused = by_client(server, repository, "--label", 10, "-o", tmp_path / "no.png")
    assert (
        refused.returncode == 1
        and "label 10 is out of range" in refused.stderr
        and not (tmp_path / "no.png").exists()
    )


def test_an_unknown_model_is_not_found(client: Client):
    with pytest.raises(InferenceServerException) as refused:
        client.ask("bcm_nonesuch", ["result"], ONE)
    assert refused.value.status() == "StatusCode.NOT_FOUND"


def test_killed_processes_of_a_model_are_replaced_by_loading_it_again(
    triton: None, repository: Path, tmp_path: Path, bcm: BCM
):
    """Triton does not start them again by itself. Until then the processes that live go on answering, and nothing wrong is answered."""
    wanted = bcm.generate(1, seed=1, labels=1)
    with running(repository, tmp_path / "log", "--model-control-mode=explicit", "--load-model=*") as own:
        asking = Client(own)

        def ask(times: int) -> list[bool]:
            """Which of several requests were answered."""
            answered = []
            for _ in range(times):
                try:
                    assert_images_agree(asking.ask("bcm_generate", ["result"], ONE)["result"], wanted)
                    answered.append(True)
                except InferenceServerException as error:
                    assert (
                        "Stub process 'bcm_generate_0_" in str(error)
                        and error.status() == "StatusCode.INTERNAL"
                    )
                    answered.append(False)
            return answered

        assert all(ask(4))
        first, second = (
            p for p in own.children if b"bcm_generate/" in Path(f"/proc/{p}/cmdline").read_bytes()
        )
        os.kill(first, signal.SIGKILL)
        answered = ask(8)
        while (
            len(set(answered)) < 2 and len(answered) < 400
        ):  # which process gets a request is Triton's choice
            answered += ask(8)
        assert set(answered) == {True, False}
        os.kill(second, signal.SIGKILL)
        assert not any(ask(2))
        for action in ("unload", "load"):
            request = urllib.request.Request(
                f"http://{own.http}/v2/repository/models/bcm_generate/{action}", b"{}", method="POST"
            )
            with urllib.request.urlopen(request, timeout=60) as answer:
                assert answer.status == 200
        assert all(ask(4))
        asking.close()


def test_the_probe_sees_a_dead_process_of_any_task_and_no_busy_one(
    triton: None, repository: Path, tmp_path: Path
):
    with running(repository, tmp_path / "log") as own, ThreadPoolExecutor(24) as pool:
        slow = {**IMAGE, "image_b": IMAGE["image"], "frames": np.int32(64)}
        busy = [pool.submit(lambda: Client(own).ask("bcm_interpolate", ["result"], slow)) for _ in range(48)]
        assert by_client(own, repository, "--check").returncode == 0
        assert all(answer.result()["result"].shape == (1, 64, 1, 8, 8) for answer in busy)
        child = next(p for p in own.children if b"bcm_invert/" in Path(f"/proc/{p}/cmdline").read_bytes())
        os.kill(child, signal.SIGKILL)
        probes = (
            by_client(own, repository, "--check") for _ in range(20)
        )  # a task's requests need not go round its processes evenly
        dead = next(probe for probe in probes if probe.returncode)
        assert (
            dead.returncode == 1
            and dead.stderr.startswith("bcm_invert: ")
            and "is not healthy" in dead.stderr
        )
    gone = by_client(own, repository, "--check")
    assert gone.returncode == 1 and gone.stderr.startswith(f"no server at http://{own.http}")


def test_messages_fit_into_what_grpc_takes(client: Client):
    with pytest.raises(InferenceServerException) as refused:
        client.ask("bcm_generate", ["result"], {**ONE, "schedule": "8" * 20_000})
    assert refused.value.status() == "StatusCode.INVALID_ARGUMENT" and len(str(refused.value)) < 1200


def test_a_move_that_makes_nan_is_no_answer(client: Client):
    with pytest.raises(InferenceServerException) as refused:
        client.ask("bcm_forward", ["x_u"], {**LEVELS, "x": np.full((1, 1, 8, 8), 3e38, np.float32)})
    assert (
        refused.value.status() == "StatusCode.INTERNAL"
        and "the move from 80 to 0.002 on backend onnxruntime gave NaN" in str(refused.value)
    )
