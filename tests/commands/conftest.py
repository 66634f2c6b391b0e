"""Fixtures of the tests of commands: files of images, and a Python without the extras."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from distributions import link
from fixture_types import ROOT, Cli, Completed, Process
from PIL import Image
from results import read_pixels


@pytest.fixture(scope="module")
def images_file(digits_bundle: Path, cli: Cli, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six generated digits, labels 0 … 5, seeds 40 … 45."""
    file = tmp_path_factory.mktemp("images") / "six.npz"
    arguments = ("-n", 6, "--label", "all", "--seed", 40, "--schedule", "mixture-4", "-o", file)
    assert cli("generate", digits_bundle, *arguments).exit_code == 0
    return file


@pytest.fixture(scope="module")
def pictures(digits_bundle: Path, cli: Cli, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three.png and five.png, both.npz and hole.png.

    three.png, five.png: digits of 8×8 pixels. both.npz: the same two with labels. hole.png: white in its
    lower half.
    """
    folder = tmp_path_factory.mktemp("pictures")
    for name, label in (("three", 3), ("five", 5)):
        options = ("--label", label, "--schedule", "mixture-4", "-o", folder / f"{name}.png")
        result = cli("generate", digits_bundle, *options)
        assert result.exit_code == 0, result.output
    pixels = np.stack([read_pixels(folder / f"{name}.png") for name in ("three", "five")])
    np.savez(folder / "both.npz", images=pixels, labels=[3, 5])
    hole = np.zeros((8, 8), np.uint8)
    hole[4:] = 255
    Image.fromarray(hole).save(folder / "hole.png")
    return folder


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory: pytest.TempPathFactory) -> Process:
    """Run `python cli.py …` where only the packages of a plain `pip install bcm-edge` can be imported."""
    site = tmp_path_factory.mktemp("site")
    link(["numpy", "click", "rich", "pillow"], site)

    def run(*arguments: object) -> Completed:
        return subprocess.run(
            [sys.executable, "-S", str(ROOT / "cli.py"), *map(str, arguments)],  # -S: no site-packages
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(site)},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return run
