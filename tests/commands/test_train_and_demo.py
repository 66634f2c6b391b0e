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
def test_demo_runs_every_task_on_emoji(cli: Cli, tmp_path: Path):
    result = cli("demo", "-o", tmp_path / "demo", "--json")
    assert result.exit_code == 0, result.stderr
    report = only_json(result.stdout)
    assert report["output"] == str(tmp_path / "demo")
    names = {Path(file).name for file in report["files"]}
    assert {"restyled.png", "generated.png", "styles.png", "reconstructed.png", "way.gif"} <= names
    assert {"filled.png", "enlarged.png", "coloured.png", "restored.png", "varied.png"} <= names
    inputs = {"emoji.npz", "latents.npz", "star.png", "halo.png", "hole.png"}
    assert names | inputs == {path.name for path in (tmp_path / "demo").iterdir()}
    rows = {row[0]: row[1:] for row in report["rows"]}
    assert [rows[f"restyle noto to {style}"][0] for style in ("fluent", "twemoji")] == [3, 3]
    assert rows["generate mixture-4"][0] == 4
    assert float(rows["invert-2, then one-step"][2]) < 0.05  # a grey picture has 0.1
    with Image.open(tmp_path / "demo" / "restyled.png") as picture:
        assert picture.mode == "RGB"
        assert picture.width > 8 * 128 and picture.height > 5 * 128
    first_line = (tmp_path / "demo" / "table.txt").read_text().splitlines()[0]
    assert re.fullmatch(r"what +NFE +seconds per image +MSE to the drawing", first_line.strip())


@pytest.mark.slow
def test_drawings_of_the_demo_are_inputs_of_other_commands(cli: Cli, tmp_path: Path):
    assert cli("demo", "-o", tmp_path / "demo").exit_code == 0
    output, star = tmp_path / "out.png", tmp_path / "demo" / "star.png"
    for arguments in (
        ("restyle", "emoji", star, "--label", "noto", "--to", "fluent"),
        ("inpaint", "emoji", star, "--mask", tmp_path / "demo" / "hole.png", "--label", "noto"),
        ("generate", "emoji", "--latents", tmp_path / "demo" / "latents.npz"),
        ("reconstruct", "emoji", tmp_path / "demo" / "emoji.npz"),
    ):
        result = cli(*arguments, "-o", output, "--force")
        assert result.exit_code == 0, result.stderr
