"""What the cases share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from click.testing import Result
from refusals import refusal

import bcm_edge

if TYPE_CHECKING:  # it needs torch, which not every Python here has
    from checkpoints import Weights


@pytest.fixture(scope="module")
def weights() -> Weights:
    """A network's weights as its trainer has them."""
    from networks import random_model

    return random_model().network.state_dict()


@pytest.fixture(scope="module")
def images(digits_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An npz file of two digits with their labels."""
    with bcm_edge.load(digits_bundle) as bcm:
        made = bcm.generate(2, labels=3)
    file = tmp_path_factory.mktemp("images") / "digits.npz"
    np.savez(file, images=made, labels=np.array([3, 3]))
    return file


@pytest.fixture
def refuse_checkpoint(cli: Callable[..., Result], tmp_path: Path) -> Callable[[Path], str]:
    """What `export` says of a path that it refuses, without the path."""
    from checkpoints import CONFIG

    def run(path: Path) -> str:
        message = refusal(cli("export", path, "--config", CONFIG, "--dry-run", "-o", tmp_path / "x.bundle"))
        assert message.startswith(f"{path}: ")
        return message.removeprefix(f"{path}: ")

    return run


@pytest.fixture
def generate(
    cli: Callable[..., Result], digits_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Result]:
    """Run `generate` in the test's folder, on the backend that computes nothing."""
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: cli("generate", digits_bundle, "--backend", "null", "--label", 3, *arguments)


@pytest.fixture
def train(cli: Callable[..., Result], tmp_path: Path) -> Callable[..., Result]:
    """Run `train` for one step on a small network."""
    quick = ("--steps", "1", "--batch", "2", "-o", tmp_path / "out.safetensors", "--force")

    def run(*arguments: object) -> Result:
        network = () if "--init" in arguments else ("--channels", "8")
        return cli("train", "--data", *arguments, *network, *quick)

    return run
