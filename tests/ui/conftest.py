"""Servers of the page, run by this process; requests to them with and without a browser."""

from __future__ import annotations

import base64
import http.client
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
    """The shipped model."""
    with bcm_edge.load(digits_bundle) as bcm:
        yield bcm


@pytest.fixture(scope="session")
def window(bcm: BCM) -> Iterator[Window]:
    """A server of the shipped model."""
    with serving(Answers(bcm)) as window:
        yield window


@pytest.fixture(scope="session")
def coloured(cli: Cli, tmp_path_factory: pytest.TempPathFactory) -> Answers:
    """A model of colour images of 16×16 pixels without classes. Its weights are random."""
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
    """A model with random weights whose classes have names."""
    from animals import animals_checkpoint

    folder = tmp_path_factory.mktemp("animals")
    checkpoint = animals_checkpoint(folder / "animals.safetensors")
    assert cli("export", checkpoint, "-o", folder / "animals.bundle", "--no-verify").exit_code == 0
    return Answers(bcm_edge.load(folder / "animals.bundle"))


@contextmanager
def serving(answers: Answers) -> Iterator[Window]:
    """Run a server in a thread, on a free port of the loopback interface."""
    with Window(answers) as window:
        thread = threading.Thread(target=window.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield window
        window.shutdown()
        thread.join()


@pytest.fixture(scope="session")
def ask(window: Window) -> Ask:
    """Send POST /api/TASK with fields, or with a body and headers; returns the status and the JSON."""

    def ask(task: str, fields: Any = None, body: bytes | None = None, **headers: str) -> tuple[int, Any]:
        data = json.dumps(fields).encode() if body is None else body
        all_headers = {
            "Content-Type": "application/json",
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }
        return answer_to(urllib.request.Request(f"{window.address}api/{task}", data, all_headers))

    return ask


def answer_to(request: urllib.request.Request | str) -> tuple[int, Any]:
    """The status and the JSON of an answer, which may be an error."""
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def sent(
    window: Window, method: str, path: str, body: bytes | None = None, **headers: str
) -> tuple[int, Any]:
    """Send a request whose path is not normalized by a client; returns the status and the JSON."""
    connection = http.client.HTTPConnection("127.0.0.1", window.server_port, timeout=60)
    connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
    response = connection.getresponse()
    answer = json.load(response)
    connection.close()
    return response.status, answer


def pixels(url: str) -> np.ndarray:
    """The pixels of a PNG data URL, uint8 [H, W] or [H, W, 3]."""
    head, body = url.split(",")
    assert head == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(body))))


@pytest.fixture(scope="session")
def three(bcm: BCM) -> np.ndarray:
    """A generated three, uint8 [1, 1, 8, 8]."""
    return bcm.generate(1, schedule="mixture-4", seed=0, labels=3, output_type="uint8")


@pytest.fixture(scope="session")
def five(bcm: BCM) -> np.ndarray:
    """A generated five, uint8 [1, 1, 8, 8]."""
    return bcm.generate(1, schedule="mixture-4", seed=1, labels=5, output_type="uint8")


def url_of(picture: np.ndarray) -> str:
    """The data URL of one image, uint8 [1, C, H, W]."""
    return data_url(picture[0].astype(np.float32) / np.float32(127.5) - 1)


@pytest.fixture
def page(browser: Any, window: Window) -> Iterator[Any]:
    """The page with its first image. Afterwards, checks for requests to other servers and for errors."""
    from chromium import PATIENCE

    from .browsing import wait_for_answer

    context = browser.new_context(viewport={"width": 1100, "height": 900})
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    requested, errors = [], []
    page.on("request", lambda request: requested.append(request.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on(
        "console",
        lambda message: errors.append(message.text) if "Content Security Policy" in message.text else None,
    )
    page.goto(window.address)
    wait_for_answer(page, "generate")
    yield page
    context.close()
    assert errors == []
    assert {url for url in requested if not url.startswith(("data:", window.address))} == set()
    assert window.address + "api/model" in requested


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory, three: np.ndarray, five: np.ndarray) -> dict[str, Path]:
    """three.png and five.png of 8×8 pixels, and text.png, which is not an image."""
    folder = tmp_path_factory.mktemp("pictures")
    Image.fromarray(three[0, 0]).save(folder / "three.png")
    Image.fromarray(five[0, 0]).save(folder / "five.png")
    (folder / "text.png").write_text("hello")
    return {file.stem: file for file in folder.iterdir()}
