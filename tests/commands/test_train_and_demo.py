"""bcm-edge train and demo, run once each."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from fixture_types import Cli
from PIL import Image
from results import only_json


@pytest.mark.slow
def test_train_writes_a_checkpoint_that_can_be_exported(cli: Cli, tmp_path: Path):
    images = np.random.default_rng(0).integers(0, 256, (8, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "data.npz", images=images, labels=np.arange(8) % 2)
    arguments = ("--steps", 2, "--batch", 2, "--channels", 8, "--intervals", 10)
    checkpoint, samples = tmp_path / "two.safetensors", tmp_path / "two.png"
    result = cli("train", "--data", tmp_path / "data.npz", *arguments, "-o", checkpoint, "--json")
    assert result.exit_code == 0, result.stderr
    expected = {"checkpoint": str(checkpoint), "samples": str(samples), "steps": 2}
    assert only_json(result.stdout) == expected
    with Image.open(samples) as picture:
        assert picture.format == "PNG"
    report = only_json(cli("export", checkpoint, "-o", tmp_path / "two.bundle", "--dry-run", "--json").stdout)
    assert report["config"]["num_classes"] == 2


@pytest.mark.slow
def test_demo_writes_a_folder_of_examples(cli: Cli, tmp_path: Path):
    result = cli("demo", "-o", tmp_path / "demo", "--json")
    assert result.exit_code == 0, result.stderr
    report = only_json(result.stdout)
    assert report["output"] == str(tmp_path / "demo")
    names = {"digits.bundle", "generated.png", "reconstructed.png", "latents.npz", "table.txt"}
    names |= {"filled.png", "restored.png", "way.gif", "digits.npz", "damaged.npz", "small.npz"}
    names |= {"three.png", "five.png", "hole.png"}
    assert names <= {path.name for path in (tmp_path / "demo").iterdir()}
    first_line = (tmp_path / "demo" / "table.txt").read_text().splitlines()[0]
    assert re.fullmatch(r"what +NFE +seconds per image +reconstruction MSE", first_line.strip())
    assert cli("verify", tmp_path / "demo" / "digits.bundle").exit_code == 0
