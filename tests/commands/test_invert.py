"""bcm-edge invert and reconstruct: latents, reconstructions and their errors."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from agreement import assert_images_agree, assert_pixels_show
from archives import read_npz
from fixture_types import Cli
from PIL import Image
from results import only_json


def test_invert_npz_contains_latents_of_unit_variance(
    digits_bundle: Path, images_file: Path, cli: Cli, tmp_path: Path
):
    assert cli("invert", digits_bundle, images_file, "--seed", 9, "-o", tmp_path / "z.npz").exit_code == 0
    arrays = read_npz(tmp_path / "z.npz")
    assert set(arrays) == {"latents", "seeds", "labels"}
    assert arrays["latents"].dtype == np.float32
    assert arrays["latents"].shape == (6, 1, 8, 8)
    assert 0.7 < arrays["latents"].std() < 1.3
    assert arrays["seeds"].tolist() == [9, 10, 11, 12, 13, 14]
    assert arrays["labels"].tolist() == [0, 1, 2, 3, 4, 5]


def test_invert_and_generate_give_the_images_of_reconstruct(
    digits_bundle: Path, images_file: Path, cli: Cli, tmp_path: Path
):
    latents, generated = tmp_path / "latents.npz", tmp_path / "generated.npz"
    reconstructed = tmp_path / "reconstructed.npz"
    assert cli("invert", digits_bundle, images_file, "--seed", 3, "-o", latents).exit_code == 0
    assert cli("generate", digits_bundle, "--latents", latents, "-o", generated).exit_code == 0
    assert cli("reconstruct", digits_bundle, images_file, "--seed", 3, "-o", reconstructed).exit_code == 0
    assert_images_agree(read_npz(generated)["images"], read_npz(reconstructed)["images"])
    assert read_npz(generated)["labels"].tolist() == [0, 1, 2, 3, 4, 5]


def test_reconstruct_reports_the_error_of_its_npz(
    digits_bundle: Path, images_file: Path, cli: Cli, tmp_path: Path
):
    result = cli("reconstruct", digits_bundle, images_file, "-o", tmp_path / "r.npz", "--json")
    report = only_json(result.stdout)
    arrays = read_npz(tmp_path / "r.npz")
    np.testing.assert_array_equal(arrays["originals"], read_npz(images_file)["images"])
    images, originals = (arrays[name].astype(np.float64) for name in ("images", "originals"))
    differences = (np.rint((images + 1) * 127.5) - np.rint((originals + 1) * 127.5)) / 255
    expected = np.square(differences).mean(axis=(1, 2, 3))
    assert report["mse"] == pytest.approx(expected.mean(), rel=1e-6)
    assert report["mse_per_image"] == pytest.approx(expected.tolist(), rel=1e-6)
    assert 0 < report["mse"] < 0.05  # of pixels in [0, 1]; the error of another digit is about 0.15


def test_reconstruct_writes_pairs_and_prints_a_table(
    digits_bundle: Path, images_file: Path, cli: Cli, tmp_path: Path
):
    result = cli("reconstruct", digits_bundle, images_file, "--scale", 1, "-o", tmp_path / "pairs.png")
    assert result.exit_code == 0
    assert result.stdout.splitlines()[0].split() == ["image", "MSE"]
    assert re.search(r"^mean +0\.\d{5}$", result.stdout, re.MULTILINE)
    assert len(re.findall(r"^six\[\d\] +0\.\d{5}$", result.stdout, re.MULTILINE)) == 6
    with Image.open(tmp_path / "pairs.png") as picture:
        assert picture.size == (4 * 8, 4 * 8)  # 4 columns; every second row has reconstructions
        sheet = np.asarray(picture)
    cells = [sheet[8 * row : 8 * row + 8, :8] for row in range(4)]
    images = read_npz(images_file)["images"]
    for row, index in ((0, 0), (2, 4)):
        assert_pixels_show(cells[row], images[index, 0])
    to_its_original, to_another = (np.abs(cells[1].astype(float) - cells[row]).mean() for row in (0, 2))
    assert to_its_original < to_another


def test_picture_of_latents_has_no_seeds(digits_bundle: Path, images_file: Path, cli: Cli, tmp_path: Path):
    latents, again, generated = (tmp_path / name for name in ("z.npz", "again.png", "generated.png"))
    assert cli("invert", digits_bundle, images_file, "-o", latents).exit_code == 0
    assert cli("generate", digits_bundle, "--latents", latents, "-o", again).exit_code == 0
    assert cli("generate", digits_bundle, "-n", 6, "--label", "0,1,2,3,4,5", "-o", generated).exit_code == 0
    with Image.open(again) as picture, Image.open(generated) as with_seeds:
        assert picture.height == with_seeds.height and picture.width < with_seeds.width - 50


def test_latents_far_from_noise_are_named(digits_bundle: Path, pictures: Path, cli: Cli, tmp_path: Path):
    Image.new("L", (8, 8), 255).save(tmp_path / "white.png")
    options = ("--label", 3, "-o", tmp_path / "latents.npz")
    result = cli("invert", digits_bundle, pictures / "three.png", tmp_path / "white.png", *options, "--json")
    assert only_json(result.stdout)["far_from_noise"] == ["white"]
    assert "note: far from noise: white (1 of 2 latents with a standard deviation outside" in result.stderr
    again = ("--label", 3, "-o", tmp_path / "again.png")
    result = cli("generate", digits_bundle, "--latents", tmp_path / "latents.npz", *again)
    assert result.exit_code == 0 and "note: far from noise: 1 (1 of 2 latents" in result.stderr
    result = cli("invert", digits_bundle, pictures / "three.png", *options, "--force")
    assert "far from noise" not in result.stderr


def test_latents_of_the_emoji_models_own_images_are_not_far_from_noise(cli: Cli, tmp_path: Path):
    images, latents = tmp_path / "images.npz", tmp_path / "latents.npz"
    assert cli("generate", "emoji", "-n", 3, "--label", "all", "-o", images).exit_code == 0
    result = cli("invert", "emoji", images, "-o", latents, "--json")
    assert only_json(result.stdout)["far_from_noise"] == [] and "far from noise" not in result.stderr


@pytest.mark.parametrize("batch", [1, 16])
@pytest.mark.parametrize("arguments", [("reconstruct",), ("variations", "-n", 3), ("interpolate",)])
def test_images_whose_latents_are_far_from_noise_are_named(
    digits_bundle: Path, pictures: Path, cli: Cli, tmp_path: Path, arguments: tuple[str, ...], batch: int
):
    three, white = pictures / "three.png", tmp_path / "white.png"
    Image.new("L", (8, 8), 255).save(white)
    options = ("--label", 3, "--batch", batch, "-o", tmp_path / "out.png", "--json")
    name, *others = arguments
    result = cli(name, digits_bundle, three, white, *others, *options)
    assert only_json(result.stdout)["far_from_noise"] == ["white"]
    assert "note: far from noise: white (1 of 2 latents" in result.stderr
    result = cli(name, digits_bundle, three, three, *others, *options, "--force")
    assert only_json(result.stdout)["far_from_noise"] == [] and "far from noise" not in result.stderr


def test_latents_with_an_offset_are_refused(digits_bundle: Path, cli: Cli, tmp_path: Path):
    np.savez(tmp_path / "z.npz", latents=np.full((1, 1, 8, 8), -30, np.float32))
    result = cli(
        "generate", digits_bundle, "--latents", tmp_path / "z.npz", "--label", 3, "-o", tmp_path / "x.png"
    )
    assert result.exit_code == 2 and "latents have a mean of -30, but about 0 is expected" in result.stderr
