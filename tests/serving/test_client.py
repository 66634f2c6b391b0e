"""The client of a repository, and processes of a server that are killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from agreement import assert_images_agree, assert_pixels_agree
from asking import Client
from fixture_types import Completed
from PIL import Image
from sample_requests import IMAGE, ONE
from server import Server, running
from tritonclient.utils import InferenceServerException

from bcm_edge import BCM


def by_client(server: Server, repository: Path, *arguments: object) -> Completed:
    """Run client.py of a repository as a process."""
    url = f"http://{server.http}"
    command = [sys.executable, str(repository / "client.py"), "--url", url, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)


def processes_of(server: Server, model: str) -> list[int]:
    """Return the processes of a model of a server."""
    name = f"{model}/".encode()
    return [child for child in server.children if name in Path(f"/proc/{child}/cmdline").read_bytes()]


def test_client_of_a_repository_fetches_a_picture(server: Server, repository: Path, bcm: BCM, tmp_path: Path):
    options = ("--seed", 7, "--label", 3, "--schedule", "mixture-4", "-o", tmp_path / "three.png")
    result = by_client(server, repository, *options)
    assert (result.returncode, result.stdout) == (0, f"{tmp_path}/three.png\n")
    expected = bcm.generate(1, seed=7, labels=3, schedule="mixture-4", output_type="uint8")[0, 0]
    assert_pixels_agree(Image.open(tmp_path / "three.png"), expected)
    refused = by_client(server, repository, "--label", 10, "-o", tmp_path / "no.png")
    assert refused.returncode == 1
    assert "label 10 is out of range" in refused.stderr
    assert not (tmp_path / "no.png").exists()


def test_loading_a_model_again_replaces_its_killed_processes(
    triton: None, repository: Path, tmp_path: Path, bcm: BCM
):
    """Triton does not restart killed processes. Until the model is loaded again, only the others answer."""
    expected = bcm.generate(1, seed=1, labels=1)
    with running(repository, tmp_path / "log", "--model-control-mode=explicit", "--load-model=*") as own:
        asking = Client(own)

        def ask(times: int) -> list[bool]:
            """Send several requests, and return which of them were answered."""
            answered = []
            for _ in range(times):
                try:
                    assert_images_agree(asking.ask("bcm_generate", ["result"], ONE)["result"], expected)
                    answered.append(True)
                except InferenceServerException as error:
                    assert "Stub process 'bcm_generate_0_" in str(error)
                    assert error.status() == "StatusCode.INTERNAL"
                    answered.append(False)
            return answered

        assert all(ask(4))
        first, second = processes_of(own, "bcm_generate")
        os.kill(first, signal.SIGKILL)
        answered = ask(8)
        # Triton chooses the process that gets a request.
        while len(set(answered)) < 2 and len(answered) < 400:
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


def test_probe_detects_a_dead_process_but_accepts_a_busy_one(triton: None, repository: Path, tmp_path: Path):
    with running(repository, tmp_path / "log") as own, ThreadPoolExecutor(24) as pool:
        slow = {**IMAGE, "image_b": IMAGE["image"], "frames": np.int32(64)}
        busy = [pool.submit(lambda: Client(own).ask("bcm_interpolate", ["result"], slow)) for _ in range(48)]
        assert by_client(own, repository, "--check").returncode == 0
        assert all(answer.result()["result"].shape == (1, 64, 1, 8, 8) for answer in busy)
        os.kill(processes_of(own, "bcm_invert")[0], signal.SIGKILL)
        # The requests of a task need not go to its processes in turn, so one probe may not see the dead one.
        probes = (by_client(own, repository, "--check") for _ in range(20))
        dead = next(probe for probe in probes if probe.returncode)
        assert dead.returncode == 1
        assert dead.stderr.startswith("bcm_invert: ")
        assert "is not healthy" in dead.stderr
    stopped = by_client(own, repository, "--check")
    assert stopped.returncode == 1
    assert stopped.stderr.startswith(f"no server at http://{own.http}")
