"""One server for all tests that only send requests.

It has the repository of the shipped model, for a server whose only backend is Python.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from asking import Client
from server import FOLDER, Server, running

import bcm_edge
from bcm_edge.export.triton.configs import Serving
from bcm_edge.export.triton.plan import plan_repository
from bcm_edge.export.triton.repository import write_repository
from bcm_edge.runtime.storage.bundle import Bundle, open_bundle
from bcm_edge.training.data import load_digits


@pytest.fixture(scope="session")
def triton() -> None:
    """Skip the test where Triton is not installed."""
    if not (FOLDER / "installed").exists():
        pytest.skip("Triton is not installed; tests/serving/fetch.sh installs it")


@pytest.fixture(scope="session")
def repository(digits_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository of the shipped model, with streams."""
    root = tmp_path_factory.mktemp("triton") / "models"
    bundle = open_bundle(digits_bundle)
    write_repository(plan_repository(bundle, root, "python", None, Serving(), (), True, False))
    return root


@pytest.fixture(scope="module")
def bundle(digits_bundle: Path) -> Bundle:
    """The bundle of the shipped model."""
    return open_bundle(digits_bundle)


@pytest.fixture(scope="session")
def server(triton: None, repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The running server."""
    with running(repository, tmp_path_factory.mktemp("log") / "triton.log") as started:
        yield started


@pytest.fixture(scope="session")
def client(server: Server) -> Iterator[Client]:
    """A connection to the server over gRPC."""
    opened = Client(server)
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def bcm(digits_bundle: Path) -> Iterator[bcm_edge.BCM]:
    """The same model in this process."""
    with bcm_edge.load(digits_bundle, "onnxruntime") as opened:
        yield opened


@pytest.fixture(scope="session")
def digits() -> np.ndarray:
    """Four test digits, float32 [4, 1, 8, 8]."""
    part = load_digits("test")
    return part.images.numpy()[:4]
