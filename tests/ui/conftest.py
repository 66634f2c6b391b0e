"""A window on the shipped model, served from this process, and how to ask it things without a browser."""

from __future__ import annotations

import base64
import io
import json
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fixture_types import Cli
from PIL import Image

import bcm_edge
from bcm_edge.runtime.pipeline import BCM
from bcm_edge.ui.answers import Answers
from bcm_edge.ui.fields import data_url
from bcm_edge.ui.server import Window

Ask = Callable[..., tuple[int, Any]]


@pytest.fixture(scope="session")
def bcm(digits_bundle: Path) -> Iterator[BCM]:
    with bcm_edge.load(digits_bundle) as bcm:
        yield bcm


@pytest.fixture(scope="session")
def window(bcm: BCM) -> Iterator[Window]:
    with serving(Answers(bcm)) as window:
        yield window


@pytest.fixture(scope="session")
def coloured(cli: Cli, tmp_path_factory: pytest.TempPathFactory) -> Answers:
    """Of a network in colour, 16×16, without classes and with random weights: what it makes is no picture, but of the right size."""
    from networks import TINY, random_model

    from bcm_edge.model.checkpoint import save_checkpoint

    folder, config = tmp_path_factory.mktemp("coloured"), replace(TINY, num_classes=None)
    save_checkpoint(folder / "rgb.safetensors", random_model(config).network.state_dict(), config, {}, {})
    assert (
        cli("export", folder / "rgb.safetensors", "-o", folder / "rgb.bundle", "--no-verify").exit_code == 0
    )
    return Answers(bcm_edge.load(folder / "rgb.bundle"))


@pytest.fixture(scope="session")
def animals(cli: Cli, tmp_path_factory: pytest.TempPathFactory) -> Answers:
    """Of a network with random weights whose classes have names."""
    from animals import animals_checkpoint

    folder = tmp_path_factory.mktemp("animals")
    checkpoint = animals_checkpoint(folder / "animals.safetensors")
    assert cli("export", checkpoint, "-o", folder / "animals.bundle", "--no-verify").exit_code == 0
    return Answers(bcm_edge.load(folder / "animals.bundle"))


@contextmanager
def serving(answers: Answers) -> Iterator[Window]:
    """A window on a free port of the loopback, answering in a thread."""
    with Window(answers) as window:
        thread = threading.Thread(target=window.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield window
        window.shutdown()
        thread.join()


@pytest.fixture(scope="session")
def ask(window: Window) -> Ask:
    """(status, JSON) of POST /api/TASK with fields, or with a body and headers of one's own."""

    def ask(task: str, fields: Any = None, body: bytes | None = None, **headers: str) -> tuple[int, Any]:
        data = json.dumps(fields).encode() if body is None else body
        given = {
            "Content-Type": "application/json",
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }
        return answer_to(urllib.request.Request(f"{window.address}api/{task}", data, given))

    return ask


def answer_to(request: urllib.request.Request | str) -> tuple[int, Any]:
    """Status and JSON of what a server answers, be it a refusal."""
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def pixels(url: str) -> np.ndarray:
    """uint8 [H, W] or [H, W, 3] of a PNG data URL."""
    head, body = url.split(",")
    assert head == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(body))))


@pytest.fixture(scope="session")
def three(bcm: BCM) -> np.ndarray:
    """A three that the model made, uint8 [1, 1, 8, 8]."""
    return bcm.generate(1, schedule="mixture-4", seed=0, labels=3, uint8=True)


@pytest.fixture(scope="session")
def five(bcm: BCM) -> np.ndarray:
    """A five that the model made, uint8 [1, 1, 8, 8]."""
    return bcm.generate(1, schedule="mixture-4", seed=1, labels=5, uint8=True)


def url_of(picture: np.ndarray) -> str:
    """The data URL of one picture uint8 [1, C, H, W]."""
    return data_url(picture[0].astype(np.float32) / np.float32(127.5) - 1)
