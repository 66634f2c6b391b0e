"""One server for all tests that only ask, on the shipped model's repository for a server that has nothing but Python."""

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
from bcm_edge.runtime.storage.bundle import open_bundle
from bcm_edge.training.data import load_digits


@pytest.fixture(scope="session")
def triton() -> None:
    if not (FOLDER / "installed").exists():
        pytest.skip("no Triton here; tests/serving/fetch.sh brings one")


@pytest.fixture(scope="session")
def repository(digits_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("triton") / "models"
    write_repository(
        plan_repository(open_bundle(digits_bundle), root, "python", None, Serving(), (), True, False)
    )
    return root


@pytest.fixture(scope="session")
def server(triton: None, repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(repository, tmp_path_factory.mktemp("log") / "triton.log") as started:
        yield started


@pytest.fixture(scope="session")
def client(server: Server) -> Iterator[Client]:
    opened = Client(server)
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def bcm(digits_bundle: Path) -> Iterator[bcm_edge.BCM]:
    with bcm_edge.load(digits_bundle, "onnxruntime") as opened:
        yield opened


@pytest.fixture(scope="session")
def digits() -> np.ndarray:
    """float32 [4, 1, 8, 8]: of classes LABELS."""
    part = load_digits("test")
    return part.images.numpy()[:4]
