"""Fixtures of several files: weights, images, and commands with most of their options filled in."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from click.testing import Result
from fixture_types import Cli, Refusal
from refusals import refusal
from unit_images import unit_images

import bcm_edge

if TYPE_CHECKING:  # it needs torch, which not every Python here has
    from checkpoints import Weights


@pytest.fixture(scope="module")
def weights() -> Weights:
    """The weights of a network, as its trainer has them."""
    from networks import random_model

    return random_model().network.state_dict()


@pytest.fixture(scope="module")
def images(digits_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An npz file of two digits with their labels."""
    with bcm_edge.load(digits_bundle) as bcm:
        digits = bcm.generate(2, labels=3)
    file = tmp_path_factory.mktemp("images") / "digits.npz"
    np.savez(file, images=digits, labels=np.array([3, 3]))
    return file


@pytest.fixture(scope="session")
def animals(cli: Cli, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle whose classes have names. Tests must not change it."""
    from animals import animals_checkpoint

    folder = tmp_path_factory.mktemp("animals")
    checkpoint = animals_checkpoint(folder / "animals.safetensors")
    assert cli("export", checkpoint, "-o", folder / "animals.bundle", "--no-verify").exit_code == 0
    return folder / "animals.bundle"


@pytest.fixture
def unit_npz(tmp_path: Path) -> Path:
    """An npz file of four images in [0, 1]."""
    np.savez(tmp_path / "unit.npz", images=unit_images(), labels=np.arange(4))
    return tmp_path / "unit.npz"


@pytest.fixture
def invert(cli: Cli, digits_bundle: Path, tmp_path: Path) -> Cli:
    """Run `invert` with the output out.npz."""

    def run(*arguments: object) -> Result:
        return cli("invert", digits_bundle, *arguments, "-o", tmp_path / "out.npz", "--force")

    return run


@pytest.fixture
def refuse_checkpoint(cli: Cli, tmp_path: Path) -> Refusal:
    """Run `export` on a path that it must refuse; return its message without the path."""
    from checkpoints import CONFIG

    def run(path: Path) -> str:
        message = refusal(cli("export", path, "--config", CONFIG, "--dry-run", "-o", tmp_path / "x.bundle"))
        assert message.startswith(f"{path}: ")
        return message.removeprefix(f"{path}: ")

    return run


@pytest.fixture
def generate(cli: Cli, digits_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Run `generate` in the test's folder, on the backend `null`, which runs no network."""
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: cli("generate", digits_bundle, "--backend", "null", "--label", 3, *arguments)


@pytest.fixture
def train(cli: Cli, tmp_path: Path) -> Cli:
    """Run `train` for one step on a small network."""
    quick = ("--steps", "1", "--batch", "2", "-o", tmp_path / "out.safetensors", "--force")

    def run(*arguments: object) -> Result:
        network = () if "--init" in arguments else ("--channels", "8")
        return cli("train", "--data", *arguments, *network, *quick)

    return run
