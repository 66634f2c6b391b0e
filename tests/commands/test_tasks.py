"""interpolate, variations, restyle, trace, upscale, colorize, restore and purify: from files to files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from agreement import assert_images_agree
from archives import read_npz
from fixture_types import Cli
from networks import TINY, random_model
from PIL import Image
from PIL.GifImagePlugin import GifImageFile
from PIL.PngImagePlugin import PngImageFile
from refusals import refusal
from results import only_json, read_pixels

import bcm_edge
from bcm_edge.model.checkpoint import save_checkpoint
from bcm_edge.runtime.pixels import from_uint8

NO_FILE = "cannot be read (No such file or directory)"


@pytest.mark.parametrize("suffix", ["gif", "apng"])
def test_interpolate_writes_an_animation(
    digits_bundle: Path, pictures: Path, cli: Cli, tmp_path: Path, suffix: str
):
    output = tmp_path / f"way.{suffix}"
    arguments = (digits_bundle, pictures / "three.png", pictures / "five.png", "--label", "3,5", "-o", output)
    result = cli("interpolate", *arguments, "--frames", 5)
    assert result.exit_code == 0, result.output
    with Image.open(output) as animation:
        assert isinstance(animation, GifImageFile | PngImageFile)
        assert animation.n_frames == 8  # 5 frames forward and 3 back
        assert animation.size == (256, 256)
    assert "exists already" in refusal(cli("interpolate", *arguments))


def test_interpolate_strip_has_a_row_per_pair_and_reconstructed_ends(
    digits_bundle: Path, pictures: Path, cli: Cli, tmp_path: Path
):
    arguments = (pictures / "both.npz", pictures / "both.npz", "--frames", 4, "--json")
    result = cli("interpolate", digits_bundle, *arguments, "-o", tmp_path / "way.npz")
    report = only_json(result.stdout)
    assert (report["pairs"], report["images"], report["nfe"]) == (2, 8, 2 * 2 + 4)
    frames = np.load(tmp_path / "way.npz")["images"].reshape(2, 4, 1, 8, 8)
    with bcm_edge.load(digits_bundle) as bcm:
        images = from_uint8(np.load(pictures / "both.npz")["images"][:, None])
        reconstructed = bcm.reconstruct(images, labels=[3, 5])
    assert_images_agree(frames[:, 0], reconstructed)
    assert_images_agree(frames[:, -1], reconstructed)
    options = ("--scale", 1, "-o", tmp_path / "way.png")
    assert cli("interpolate", digits_bundle, *arguments, *options).exit_code == 0
    assert read_pixels(tmp_path / "way.png").shape == (2 * 8, 4 * 8)


def test_variations_show_the_original_first(digits_bundle: Path, pictures: Path, cli: Cli, tmp_path: Path):
    arguments = (pictures / "three.png", "--label", 3, "-n", 2, "--scale", 1, "-o", tmp_path / "near.png")
    result = cli("variations", digits_bundle, *arguments)
    assert result.exit_code == 0, result.output
    sheet = read_pixels(tmp_path / "near.png")
    assert sheet.shape == (8, 3 * 8)
    assert (sheet[:, :8] == read_pixels(pictures / "three.png")).all()


def test_restyle_shows_each_image_above_its_result(
    digits_bundle: Path, pictures: Path, cli: Cli, tmp_path: Path
):
    arguments = (pictures / "both.npz", "--to", "8,3")
    result = cli("restyle", digits_bundle, *arguments, "--json", "-o", tmp_path / "restyled.npz")
    report = only_json(result.stdout)
    assert [report[name] for name in ("nfe", "labels", "to", "far_from_noise")] == [3, [3, 5], [8, 3], []]
    arrays = np.load(tmp_path / "restyled.npz")
    assert arrays["labels"].tolist() == [8, 3]
    with bcm_edge.load(digits_bundle) as bcm:
        images = from_uint8(np.load(pictures / "both.npz")["images"][:, None])
        assert_images_agree(arrays["originals"], images)
        assert_images_agree(arrays["images"], bcm.restyle(images, labels=[3, 5], to=[8, 3]))
    options = ("--label", "guess", "--scale", 1, "-o", tmp_path / "pairs.png")
    result = cli("restyle", digits_bundle, *arguments, *options)
    assert "guessed labels (50 NFE per image): 3, 5" in result.stderr
    sheet = read_pixels(tmp_path / "pairs.png")
    assert sheet.shape == (2 * 8, 2 * 8)
    assert (sheet[:8, :8] == read_pixels(pictures / "three.png")).all()


def test_trace_of_an_image_ends_with_its_error(digits_bundle: Path, pictures: Path, cli: Cli, tmp_path: Path):
    options = ("--json", "--scale", 1, "-o", tmp_path / "strip.png")
    result = cli("trace", digits_bundle, pictures / "both.npz", *options)
    report = only_json(result.stdout)
    assert report["levels"] == [0.07, 1.25, 80, 0.002]
    assert len(report["largest_error"]) == 2
    # columns: the image, four states, the error
    assert read_pixels(tmp_path / "strip.png").shape == (2 * 8, 6 * 8, 3)


def test_trace_of_noise_writes_arrays(digits_bundle: Path, cli: Cli, tmp_path: Path):
    arguments = ("-n", 3, "--label", "all", "--schedule", "80>2.4>0.002", "-o", tmp_path / "states.npz")
    result = cli("trace", digits_bundle, *arguments)
    assert result.exit_code == 0, result.output
    arrays = np.load(tmp_path / "states.npz")
    assert arrays["states"].shape == (3, 3, 1, 8, 8)
    assert arrays["levels"].tolist() == [80, 2.4, 0.002]


def test_upscaled_blocks_have_the_mean_of_the_small_pixels(
    digits_bundle: Path, pictures: Path, cli: Cli, tmp_path: Path
):
    Image.open(pictures / "three.png").resize((4, 4), Image.Resampling.BOX).save(tmp_path / "small.png")
    arguments = (tmp_path / "small.png", "--label", 3, "--beside", "-o", tmp_path / "large.npz")
    result = cli("upscale", digits_bundle, *arguments)
    assert result.exit_code == 0, result.output
    arrays = np.load(tmp_path / "large.npz")
    means = arrays["images"].reshape(1, 1, 4, 2, 4, 2).mean(axis=(3, 5))
    np.testing.assert_allclose(means, arrays["given"], atol=1e-5)


def test_colorize_keeps_the_brightness(pictures: Path, cli: Cli, tmp_path: Path):
    """The network has random weights: its colours are meaningless, but the brightness is exact."""
    config = replace(TINY, num_classes=None)
    checkpoint, bundle = tmp_path / "rgb.safetensors", tmp_path / "rgb.bundle"
    save_checkpoint(checkpoint, random_model(config).network.state_dict(), config, {}, {})
    assert cli("export", checkpoint, "-o", bundle, "--no-verify").exit_code == 0
    result = cli("colorize", bundle, pictures / "three.png", "-o", tmp_path / "coloured.npz")
    assert "in colour" not in result.stderr
    Image.new("RGB", (8, 8), "red").save(tmp_path / "red.png")
    red = cli("colorize", bundle, tmp_path / "red.png", "-o", tmp_path / "red.npz")
    assert "note: 1 image in colour: the brightness is kept, and the colours are replaced\n" in red.stderr
    assert result.exit_code == 0, result.output
    arrays = np.load(tmp_path / "coloured.npz")
    assert arrays["images"].shape == (1, 3, 16, 16)
    assert arrays["given"].shape == (1, 1, 16, 16)
    brightness = np.tensordot([0.299, 0.587, 0.114], arrays["images"], axes=(0, 1))
    np.testing.assert_allclose(brightness, arrays["given"][:, 0], atol=1e-5)


def test_restore_beside_shows_the_input_above_the_result(
    digits_bundle: Path, pictures: Path, cli: Cli, tmp_path: Path
):
    Image.open(pictures / "three.png").save(tmp_path / "three.jpg", quality=10)
    options = ("--label", "guess", "--beside", "--scale", 1, "--json", "-o", tmp_path / "pair.png")
    result = cli("restore", digits_bundle, tmp_path / "three.jpg", *options)
    report = only_json(result.stdout)
    assert (report["nfe"], report["labels"]) == (2, [3])
    assert "guessed labels (50 NFE per image): 3" in result.stderr
    assert read_pixels(tmp_path / "pair.png").shape == (2 * 8, 8)


def test_purify_ignores_the_labels_of_its_input(
    digits_bundle: Path, pictures: Path, cli: Cli, tmp_path: Path
):
    attacked = tmp_path / "attacked.npz"
    np.savez(attacked, images=read_npz(pictures / "both.npz")["images"], labels=[0, 0])
    guessed = cli("purify", digits_bundle, attacked, "--json", "-o", tmp_path / "guessed.npz")
    assert only_json(guessed.stdout)["labels"] == [3, 5]
    options = ("--label", "7,8", "--json", "-o", tmp_path / "labelled.npz")
    assert only_json(cli("purify", digits_bundle, attacked, *options).stdout)["labels"] == [7, 8]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("interpolate three.png five.png --label 1,2,3", "3 labels; give one for both images, or two"),
        ("interpolate three.png both.npz --label 3", "same number of images, not 1 and 2"),
        ("interpolate three.png five.png", "class-conditional"),
        ("variations three.png", "class-conditional"),
        ("restyle three.png --to 8", "class-conditional"),
        ("restyle none.png --label 3", "needs the class to generate: give --to with a number from 0 to 9"),
        (
            "restyle three.png --label 3 --to 8,9",
            "--to: 2 classes for 1 image; give each image once per class",
        ),
        ("restyle three.png --label 3 --to guess", "--to: the class to generate cannot be guessed"),
        ("restyle three.png --label 3 --to 8 --inversion one-step", "does not invert"),
        ("inpaint three.png --label 3", "has no transparent pixels"),
        ("inpaint both.npz", "has no array `masks`"),
        ("inpaint three.png --mask three.npz --label 3", f"three.npz: {NO_FILE}"),
        ("inpaint three.png --mask none.png --label 3", f"none.png: {NO_FILE}"),
        ("inpaint three.png --mask hole.png --label 3 --schedule invert-2", "does not fill in"),
        ("colorize three.png --label 3", "needs a model of colour images"),
        ("upscale three.png --factor 3 --label 3", "is not divisible by it"),
        ("restore three.png --label 3 --strength 5", "strength must be at least 0.002 and below 5, not 5"),
        ("restore three.png --label 3 --schedule one-step", "does not restore"),
        ("trace --label guess", "--label guess needs images as input"),
        ("trace three.png --label 3 --inversion one-step", "does not invert"),
    ],
)
def test_wrong_input_is_refused_and_nothing_is_written(
    digits_bundle: Path,
    pictures: Path,
    cli: Cli,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: str,
    message: str,
):
    monkeypatch.chdir(pictures)
    name, *rest = arguments.split()
    assert message in refusal(cli(name, digits_bundle, *rest, "-o", tmp_path / "out.png"))
    assert not (tmp_path / "out.png").exists()
