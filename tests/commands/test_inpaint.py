"""bcm-edge inpaint: masks from pictures, arrays and transparency."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from archives import read_npz, write_npz
from fixture_types import Cli
from PIL import Image
from refusals import refusal
from results import only_json, read_pixels

from bcm_edge.runtime.pictures.images import read_image_set
from bcm_edge.runtime.pixels import to_uint8


def test_inpaint_keeps_every_known_pixel(digits_bundle: Path, pictures: Path, cli: Cli, tmp_path: Path):
    options = ("--mask", pictures / "hole.png", "--label", 3, "-o", tmp_path / "filled.png")
    result = cli("inpaint", digits_bundle, pictures / "three.png", *options)
    assert result.exit_code == 0, result.output
    filled, original = read_pixels(tmp_path / "filled.png"), read_pixels(pictures / "three.png")
    assert filled.shape == (8, 8)
    assert (filled[:4] == original[:4]).all()
    assert (filled[4:] != original[4:]).any()


def test_mask_may_be_painted_on_the_enlarged_picture(
    digits_bundle: Path, pictures: Path, cli: Cli, tmp_path: Path
):
    assert Image.open(pictures / "three.png").size == (128, 128)
    mask = np.zeros((128, 128), np.uint8)
    mask[64:] = 255
    Image.fromarray(mask).save(tmp_path / "hole.png")
    options = ("--mask", tmp_path / "hole.png", "--label", 3, "--json", "-o", tmp_path / "filled.png")
    result = cli("inpaint", digits_bundle, pictures / "three.png", *options)
    assert only_json(result.stdout)["filled"] == 0.5


def test_inpaint_fills_transparent_pixels(digits_bundle: Path, pictures: Path, cli: Cli, tmp_path: Path):
    alpha = np.full((8, 8), 255, np.uint8)
    alpha[2:6, 2:6] = 0
    original = read_pixels(pictures / "three.png")
    Image.merge("LA", (Image.fromarray(original), Image.fromarray(alpha))).save(tmp_path / "torn.png")
    options = ("--label", 3, "--json", "-o", tmp_path / "filled.png")
    result = cli("inpaint", digits_bundle, tmp_path / "torn.png", *options)
    assert only_json(result.stdout)["filled"] == 0.25
    filled = read_pixels(tmp_path / "filled.png")
    assert (filled[alpha == 255] == original[alpha == 255]).all()


def test_inpaint_reads_one_mask_per_image_from_an_npz(
    digits_bundle: Path, pictures: Path, cli: Cli, tmp_path: Path
):
    masks = np.zeros((2, 8, 8), bool)
    masks[0, :4] = masks[1, 4:] = True
    arrays = read_npz(pictures / "both.npz")
    write_npz(tmp_path / "torn.npz", {**arrays, "masks": masks})
    result = cli("inpaint", digits_bundle, tmp_path / "torn.npz", "-o", tmp_path / "filled.npz")
    assert result.exit_code == 0, result.output
    filled = to_uint8(np.load(tmp_path / "filled.npz")["images"])[:, 0]
    assert (filled[~masks] == arrays["images"][~masks]).all()


def test_large_mask_is_cropped_like_its_picture(
    digits_bundle: Path, pictures: Path, cli: Cli, tmp_path: Path
):
    wide = Image.new("L", (48, 32), 40)  # the model receives its middle 32×32 pixels
    wide.save(tmp_path / "wide.png")
    hole = np.zeros((32, 48), np.uint8)
    hole[:, :12] = 255  # covers the left 4 of those 32 columns, which become one column of 8
    Image.fromarray(hole).save(tmp_path / "hole.png")
    options = ("--mask", tmp_path / "hole.png", "--label", 3, "--json", "-o", tmp_path / "filled.png")
    result = cli("inpaint", digits_bundle, tmp_path / "wide.png", *options)
    assert only_json(result.stdout)["filled"] == 1 / 8


@pytest.mark.parametrize(
    ("shade", "message"),
    [(0, "brightest pixel has 0"), (1, "brightest pixel has 1"), (255, "covers the whole image")],
)
def test_mask_of_no_pixel_or_all_pixels_is_refused(
    digits_bundle: Path, pictures: Path, cli: Cli, tmp_path: Path, shade: int, message: str
):
    Image.new("L", (8, 8), shade).save(tmp_path / "mask.png")
    arguments = ("--mask", tmp_path / "mask.png", "--label", 3, "-o", tmp_path / "out.png")
    assert message in refusal(cli("inpaint", digits_bundle, pictures / "three.png", *arguments))


def test_hole_outside_the_cropped_part_is_refused(
    digits_bundle: Path, pictures: Path, cli: Cli, tmp_path: Path
):
    Image.new("L", (16, 8)).save(tmp_path / "wide.png")
    mask = Image.new("L", (16, 8))
    mask.paste(255, (0, 0, 4, 8))
    mask.save(tmp_path / "mask.png")
    arguments = ("--mask", tmp_path / "mask.png", "--label", 3, "-o", tmp_path / "out.png")
    message = refusal(cli("inpaint", digits_bundle, tmp_path / "wide.png", *arguments))
    assert "its hole lies outside the central 8:8 part" in message


@pytest.mark.parametrize(("shade", "exit_code"), [(40000, 0), (255, 2)])
def test_mask_of_16_bits_is_read_on_its_full_range(
    digits_bundle: Path, pictures: Path, cli: Cli, tmp_path: Path, shade: int, exit_code: int
):
    values = np.zeros((8, 8), np.uint16)
    values[4:] = shade
    Image.fromarray(values).save(tmp_path / "mask.png")
    arguments = ("--mask", tmp_path / "mask.png", "--label", 3, "-o", tmp_path / "out.npz")
    result = cli("inpaint", digits_bundle, pictures / "three.png", *arguments)
    assert result.exit_code == exit_code, result.stderr
    if exit_code == 0:
        known = read_npz(tmp_path / "out.npz")["images"][0, 0, :4]
        original = read_image_set([pictures / "three.png"], (1, 8, 8)).images
        assert np.array_equal(known, original[0, 0, :4])


def test_mask_of_another_size_is_refused(digits_bundle: Path, pictures: Path, cli: Cli, tmp_path: Path):
    Image.new("L", (9, 8), 255).save(tmp_path / "mask.png")
    arguments = ("--mask", tmp_path / "mask.png", "--label", 3, "-o", tmp_path / "out.png")
    message = refusal(cli("inpaint", digits_bundle, pictures / "three.png", *arguments))
    assert "the mask has 9×8 pixels, but" in message


def test_labels_of_incomplete_images_can_be_guessed(
    digits_bundle: Path, pictures: Path, cli: Cli, tmp_path: Path
):
    options = ("--mask", pictures / "hole.png", "--label", "guess", "--json", "-o", tmp_path / "filled.npz")
    result = cli("inpaint", digits_bundle, pictures / "three.png", *options)
    assert result.exit_code == 0, result.stderr
    labels = only_json(result.stdout)["labels"]
    assert f"guessed labels (50 NFE per image): {labels[0]}\n" in result.stderr
    assert np.load(tmp_path / "filled.npz")["labels"].tolist() == labels
    small = ("--factor", 2, "--label", "guess", "--json", "-o", tmp_path / "large.npz")
    result = cli("upscale", digits_bundle, pictures / "three.png", *small)
    assert len(only_json(result.stdout)["labels"]) == 1
