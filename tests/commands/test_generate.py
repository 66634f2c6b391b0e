"""bcm-edge generate: output formats, seeds, batch sizes and schedules."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from agreement import assert_images_agree, assert_pixels_show
from archives import read_npz
from fixture_types import Cli
from PIL import Image
from results import assert_same_results, only_json, read_pixels


def test_generate_writes_a_png_grid(digits_bundle: Path, cli: Cli, tmp_path: Path):
    arguments = ("-n", 16, "--schedule", "mixture-4", "--seed", 0, "--label", 3, "-o", tmp_path / "out.png")
    result = cli("generate", digits_bundle, *arguments)
    assert result.exit_code == 0
    assert result.stdout == f"{tmp_path}/out.png\n"
    with Image.open(tmp_path / "out.png") as picture:
        assert (picture.mode, picture.format) == ("L", "PNG")
        assert min(picture.size) > 4 * 128
    again = cli("generate", digits_bundle, *arguments[:-1], tmp_path / "plain.png", "--scale", 1)
    assert again.exit_code == 0
    pixels = read_pixels(tmp_path / "plain.png")
    assert pixels.shape == (32, 32)
    assert pixels[:8, :8].std() > 20
    assert not (pixels[:8, :8] == pixels[:8, 8:16]).all()


def test_generate_png_of_one_image_has_its_pixels_enlarged(digits_bundle: Path, cli: Cli, tmp_path: Path):
    for name in ("one.png", "one.npz"):
        assert cli("generate", digits_bundle, "--label", 3, "-o", tmp_path / name).exit_code == 0
    with Image.open(tmp_path / "one.png") as picture:
        pixels = np.asarray(picture)
    assert pixels.shape == (128, 128)
    assert (pixels == pixels[::16, ::16].repeat(16, axis=0).repeat(16, axis=1)).all()
    assert_pixels_show(pixels[::16, ::16], read_npz(tmp_path / "one.npz")["images"][0, 0])


def test_generate_npz_contains_images_seeds_and_labels(digits_bundle: Path, cli: Cli, tmp_path: Path):
    arguments = ("-n", 5, "--seed", 7, "--label", "2,4", "-o", tmp_path / "out.npz")
    assert cli("generate", digits_bundle, *arguments).exit_code == 0
    arrays = read_npz(tmp_path / "out.npz")
    assert set(arrays) == {"images", "seeds", "labels"}
    assert arrays["images"].dtype == np.float32
    assert arrays["images"].shape == (5, 1, 8, 8)
    assert arrays["images"].min() >= -1
    assert arrays["images"].max() <= 1
    assert arrays["seeds"].tolist() == [7, 8, 9, 10, 11]
    assert arrays["labels"].tolist() == [2, 4, 2, 4, 2]


def test_generate_folder_contains_one_picture_per_image(digits_bundle: Path, cli: Cli, tmp_path: Path):
    for name in ("folder/", "out.npz"):
        arguments = ("-n", 3, "--label", "all", "-o", f"{tmp_path}/{name}")
        assert cli("generate", digits_bundle, *arguments).exit_code == 0
    *files, index = sorted((tmp_path / "folder").iterdir())
    assert [file.name for file in files] == ["000000.png", "000001.png", "000002.png"]
    assert index.read_text() == "file,seeds,labels\n000000.png,0,0\n000001.png,1,1\n000002.png,2,2\n"
    images = read_npz(tmp_path / "out.npz")["images"]
    for file, image in zip(files, images, strict=True):
        with Image.open(file) as picture:
            assert_pixels_show(picture, image[0])


@pytest.mark.parametrize("second", ["--label", "--class"])
def test_label_given_twice_is_refused(digits_bundle: Path, cli: Cli, tmp_path: Path, second: str):
    result = cli("generate", digits_bundle, "--label", 3, second, 5, "-o", tmp_path / "out.png")
    assert result.exit_code == 2
    assert "--label/--class is given twice; give a list: --label 3,5" in result.stderr
    assert not list(tmp_path.iterdir())


def test_generate_with_the_same_seed_gives_the_same_images(digits_bundle: Path, cli: Cli, tmp_path: Path):
    for name, seed in (("first", 5), ("again", 5), ("next", 6)):
        arguments = ("-n", 3, "--seed", seed, "--label", 3, "--schedule", "zigzag-3")
        assert cli("generate", digits_bundle, *arguments, "-o", tmp_path / f"{name}.npz").exit_code == 0
    assert_same_results(tmp_path / "again.npz", tmp_path / "first.npz")
    five, six = (read_npz(tmp_path / f"{name}.npz")["images"] for name in ("first", "next"))
    assert np.abs(five - six).max() > 0.1
    assert_images_agree(five[1:], six[:2])  # seeds 6 and 7


@pytest.mark.parametrize("batch", [1, 2])
def test_generate_does_not_depend_on_the_batch(digits_bundle: Path, cli: Cli, tmp_path: Path, batch: int):
    images = []
    for size in (5, batch):
        file = tmp_path / f"{size}.npz"
        arguments = ("-n", 5, "--label", "all", "--schedule", "mixture-4", "--batch", size)
        assert cli("generate", digits_bundle, *arguments, "-o", file).exit_code == 0
        images.append(read_npz(file)["images"])
    assert_images_agree(images[0], images[1])


def test_generate_accepts_a_schedule_as_text(digits_bundle: Path, cli: Cli, tmp_path: Path):
    arguments = ("--label", 3, "--schedule", "80>5>0.5>0.002", "-o", tmp_path / "a.npz")
    result = cli("generate", digits_bundle, *arguments, "--json")
    assert only_json(result.stdout)["nfe"] == 3
