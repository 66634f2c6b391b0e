"""interpolate, variations, trace, inpaint, colorize, upscale, restore, purify on the command line: files in, files out, refusals."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from agreement import assert_images_agree
from fixture_types import Cli
from PIL import Image
from PIL.GifImagePlugin import GifImageFile
from PIL.PngImagePlugin import PngImageFile

import bcm_edge
from bcm_edge.runtime.pictures.images import read_images
from bcm_edge.runtime.pixels import from_uint8, to_uint8


@pytest.fixture(scope="module")
def folder(digits_bundle: Path, cli: Cli, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """three.png and five.png, 8×8; both.npz of the two with labels; hole.png, white in its lower half."""
    folder = tmp_path_factory.mktemp("tasks")
    for name, label in (("three", 3), ("five", 5)):
        made = cli(
            "generate",
            digits_bundle,
            "--label",
            label,
            "--schedule",
            "mixture-4",
            "-o",
            folder / f"{name}.png",
        )
        assert made.exit_code == 0, made.output
    pixels = np.stack([np.asarray(Image.open(folder / f"{name}.png")) for name in ("three", "five")])
    np.savez(folder / "both.npz", images=pixels, labels=[3, 5])
    hole = np.zeros((8, 8), np.uint8)
    hole[4:] = 255
    Image.fromarray(hole).save(folder / "hole.png")
    return folder


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


# ---- interpolate


@pytest.mark.parametrize("suffix", ["gif", "apng"])
def test_interpolate_writes_a_moving_picture(
    digits_bundle: Path, folder: Path, cli: Cli, tmp_path: Path, suffix: str
):
    output = tmp_path / f"way.{suffix}"
    done = cli(
        "interpolate",
        digits_bundle,
        folder / "three.png",
        folder / "five.png",
        "--label",
        "3,5",
        "--frames",
        5,
        "-o",
        output,
    )
    assert done.exit_code == 0, done.output
    with Image.open(output) as moving:
        assert isinstance(moving, GifImageFile | PngImageFile)
        assert moving.n_frames == 8 and moving.size == (68, 68)  # 5 there, 3 back; 64 pixels and a margin
    again = cli(
        "interpolate",
        digits_bundle,
        folder / "three.png",
        folder / "five.png",
        "--label",
        "3,5",
        "-o",
        output,
    )
    assert again.exit_code == 2 and "exists already" in again.stderr


def test_interpolate_strip_has_a_row_per_pair_and_reconstructed_ends(
    digits_bundle: Path, folder: Path, cli: Cli, tmp_path: Path
):
    arguments = (folder / "both.npz", folder / "both.npz", "--frames", 4, "--json")
    done = cli("interpolate", digits_bundle, *arguments, "-o", tmp_path / "way.npz")
    facts = json.loads(done.stdout)
    assert (facts["pairs"], facts["images"], facts["nfe"]) == (2, 8, 2 * 2 + 4)
    frames = np.load(tmp_path / "way.npz")["images"].reshape(2, 4, 1, 8, 8)
    with bcm_edge.load(digits_bundle) as bcm:
        given = from_uint8(np.load(folder / "both.npz")["images"][:, None])
        back = bcm.reconstruct(given, labels=[3, 5])
    assert_images_agree(frames[:, 0], back)
    assert_images_agree(frames[:, -1], back)
    assert cli("interpolate", digits_bundle, *arguments, "-o", tmp_path / "way.png").exit_code == 0
    assert pixels(tmp_path / "way.png").shape == (2 * 66 + 2, 4 * 66 + 2)


# ---- variations and traces


def test_variations_show_the_given_image_first(digits_bundle: Path, folder: Path, cli: Cli, tmp_path: Path):
    done = cli(
        "variations", digits_bundle, folder / "three.png", "--label", 3, "-n", 2, "-o", tmp_path / "near.png"
    )
    assert done.exit_code == 0, done.output
    sheet = pixels(tmp_path / "near.png")
    assert sheet.shape == (68, 3 * 66 + 2)
    assert (sheet[2:66:8, 2:66:8] == pixels(folder / "three.png")).all()


def test_trace_of_an_image_ends_in_its_error(digits_bundle: Path, folder: Path, cli: Cli, tmp_path: Path):
    done = cli("trace", digits_bundle, folder / "both.npz", "--json", "-o", tmp_path / "strip.png")
    facts = json.loads(done.stdout)
    assert facts["levels"] == [0.07, 1.25, 80, 0.002] and len(facts["largest_error"]) == 2
    assert pixels(tmp_path / "strip.png").shape == (2 * 66 + 2, 6 * 66 + 2, 3)  # image, four states, error


def test_trace_of_noise_as_arrays(digits_bundle: Path, cli: Cli, tmp_path: Path):
    done = cli(
        "trace",
        digits_bundle,
        "-n",
        3,
        "--label",
        "all",
        "--schedule",
        "80>2.4>0.002",
        "-o",
        tmp_path / "states.npz",
    )
    assert done.exit_code == 0, done.output
    found = np.load(tmp_path / "states.npz")
    assert found["states"].shape == (3, 3, 1, 8, 8) and found["levels"].tolist() == [80, 2.4, 0.002]


# ---- what is missing


def test_inpaint_keeps_every_known_pixel_of_the_file(
    digits_bundle: Path, folder: Path, cli: Cli, tmp_path: Path
):
    done = cli(
        "inpaint",
        digits_bundle,
        folder / "three.png",
        "--mask",
        folder / "hole.png",
        "--label",
        3,
        "-o",
        tmp_path / "filled.png",
    )
    assert done.exit_code == 0, done.output
    filled, given = pixels(tmp_path / "filled.png"), pixels(folder / "three.png")
    assert filled.shape == (8, 8) and (filled[:4] == given[:4]).all() and (filled[4:] != given[4:]).any()


def test_inpaint_fills_what_is_transparent(digits_bundle: Path, folder: Path, cli: Cli, tmp_path: Path):
    alpha = np.full((8, 8), 255, np.uint8)
    alpha[2:6, 2:6] = 0
    given = pixels(folder / "three.png")
    Image.merge("LA", (Image.fromarray(given), Image.fromarray(alpha))).save(tmp_path / "torn.png")
    done = cli(
        "inpaint", digits_bundle, tmp_path / "torn.png", "--label", 3, "--json", "-o", tmp_path / "filled.png"
    )
    assert json.loads(done.stdout)["filled"] == 0.25
    filled = pixels(tmp_path / "filled.png")
    assert (filled[alpha == 255] == given[alpha == 255]).all()


def test_inpaint_takes_a_mask_per_image_from_an_npz(
    digits_bundle: Path, folder: Path, cli: Cli, tmp_path: Path
):
    masks = np.zeros((2, 8, 8), bool)
    masks[0, :4] = masks[1, 4:] = True
    arrays = np.load(folder / "both.npz")
    np.savez(tmp_path / "torn.npz", **arrays, masks=masks)
    done = cli("inpaint", digits_bundle, tmp_path / "torn.npz", "-o", tmp_path / "filled.npz")
    assert done.exit_code == 0, done.output
    filled = to_uint8(np.load(tmp_path / "filled.npz")["images"])[:, 0]
    assert (filled[~masks] == arrays["images"][~masks]).all()


def test_a_large_mask_is_cropped_as_its_picture_is(
    digits_bundle: Path, folder: Path, cli: Cli, tmp_path: Path
):
    wide = Image.new("L", (48, 32), 40)  # its middle 32×32 is what the model sees
    wide.save(tmp_path / "wide.png")
    hole = np.zeros((32, 48), np.uint8)
    hole[:, :12] = 255  # the left 4 of those 32, one of the model's 8 columns
    Image.fromarray(hole).save(tmp_path / "hole.png")
    arguments = (
        tmp_path / "wide.png",
        "--mask",
        tmp_path / "hole.png",
        "--label",
        3,
        "--json",
        "-o",
        tmp_path / "filled.png",
    )
    assert json.loads(cli("inpaint", digits_bundle, *arguments).stdout)["filled"] == 1 / 8


def test_upscale_means_are_the_small_pixels(digits_bundle: Path, folder: Path, cli: Cli, tmp_path: Path):
    Image.open(folder / "three.png").resize((4, 4), Image.Resampling.BOX).save(tmp_path / "small.png")
    done = cli(
        "upscale",
        digits_bundle,
        tmp_path / "small.png",
        "--label",
        3,
        "--beside",
        "-o",
        tmp_path / "large.npz",
    )
    assert done.exit_code == 0, done.output
    found = np.load(tmp_path / "large.npz")
    np.testing.assert_allclose(
        found["images"].reshape(1, 1, 4, 2, 4, 2).mean(axis=(3, 5)), found["given"], atol=1e-5
    )


def test_colorize_keeps_the_brightness(folder: Path, cli: Cli, tmp_path: Path):
    """On a network of three channels with random weights: what it makes is no picture, but its brightness is exact."""
    from dataclasses import replace

    from networks import TINY, random_model

    from bcm_edge.model.checkpoint import save_checkpoint

    config = replace(TINY, num_classes=None)
    save_checkpoint(tmp_path / "rgb.safetensors", random_model(config).network.state_dict(), config, {}, {})
    assert (
        cli("export", tmp_path / "rgb.safetensors", "-o", tmp_path / "rgb.bundle", "--no-verify").exit_code
        == 0
    )
    done = cli("colorize", tmp_path / "rgb.bundle", folder / "three.png", "-o", tmp_path / "coloured.npz")
    assert done.exit_code == 0, done.output
    found = np.load(tmp_path / "coloured.npz")
    assert found["images"].shape == (1, 3, 16, 16) and found["given"].shape == (1, 1, 16, 16)
    brightness = np.tensordot([0.299, 0.587, 0.114], found["images"], axes=(0, 1))
    np.testing.assert_allclose(brightness, found["given"][:, 0], atol=1e-5)


# ---- what was done


def test_restore_shows_what_was_given_above_the_result(
    digits_bundle: Path, folder: Path, cli: Cli, tmp_path: Path
):
    Image.open(folder / "three.png").save(tmp_path / "three.jpg", quality=10)
    done = cli(
        "restore",
        digits_bundle,
        tmp_path / "three.jpg",
        "--label",
        "guess",
        "--beside",
        "--json",
        "-o",
        tmp_path / "pair.png",
    )
    facts = json.loads(done.stdout)
    assert (facts["nfe"], facts["labels"]) == (2, [3]) and "labels guessed with 50 NFE each: 3" in done.stderr
    assert pixels(tmp_path / "pair.png").shape == (2 * 66 + 2, 68)


def test_purify_does_not_trust_the_labels_of_what_it_is_given(
    digits_bundle: Path, folder: Path, cli: Cli, tmp_path: Path
):
    np.savez(tmp_path / "attacked.npz", images=np.load(folder / "both.npz")["images"], labels=[0, 0])
    done = cli("purify", digits_bundle, tmp_path / "attacked.npz", "--json", "-o", tmp_path / "clean.npz")
    assert json.loads(done.stdout)["labels"] == [3, 5]
    told = cli(
        "purify",
        digits_bundle,
        tmp_path / "attacked.npz",
        "--label",
        "7,8",
        "--json",
        "-o",
        tmp_path / "clean2.npz",
    )
    assert json.loads(told.stdout)["labels"] == [7, 8]


# ---- refusals: one line, exit code 2, nothing written


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("interpolate three.png five.png --label 1,2,3", "give one label for both images, or two"),
        ("interpolate three.png both.npz --label 3", "1 images cannot be paired with 2"),
        ("interpolate three.png five.png", "class-conditional"),
        ("variations three.png", "class-conditional"),
        ("inpaint three.png --label 3", "has no transparent pixels"),
        ("inpaint both.npz", "has no array `masks`"),
        ("inpaint three.png --mask hole.png --label guess", "something is missing"),
        (
            "inpaint three.png --mask three.npz --label 3",
            "three.npz: cannot be read (No such file or directory)",
        ),
        (
            "inpaint three.png --mask none.png --label 3",
            "none.png: cannot be read (No such file or directory)",
        ),
        ("inpaint three.png --mask hole.png --label 3 --schedule invert-2", "does not fill in"),
        ("colorize three.png --label 3", "knows no colours"),
        ("upscale three.png --factor 3 --label 3", "do not divide"),
        ("restore three.png --label 3 --strength 5", "strength is a noise level"),
        ("restore three.png --label 3 --schedule one-step", "does not restore"),
        ("trace --label guess", "there is none yet"),
        ("trace three.png --label 3 --inversion one-step", "starts at level"),
    ],
)
def test_what_cannot_be_done_is_said(
    digits_bundle: Path,
    folder: Path,
    cli: Cli,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: str,
    message: str,
):
    monkeypatch.chdir(folder)
    name, *rest = arguments.split()
    done = cli(name, digits_bundle, *rest, "-o", tmp_path / "out.png")
    assert done.exit_code == 2 and message in done.stderr and not (tmp_path / "out.png").exists()


@pytest.mark.parametrize(
    ("shade", "message"), [(0, "brightest pixel has 0"), (1, "brightest pixel has 1"), (255, "covers all")]
)
def test_a_mask_of_nothing_or_everything(
    digits_bundle: Path, folder: Path, cli: Cli, tmp_path: Path, shade: int, message: str
):
    Image.new("L", (8, 8), shade).save(tmp_path / "mask.png")
    arguments = ("--mask", tmp_path / "mask.png", "--label", 3, "-o", tmp_path / "out.png")
    done = cli("inpaint", digits_bundle, folder / "three.png", *arguments)
    assert done.exit_code == 2 and message in done.stderr


def test_a_hole_that_cropping_takes_away(digits_bundle: Path, folder: Path, cli: Cli, tmp_path: Path):
    Image.new("L", (16, 8)).save(tmp_path / "wide.png")
    mask = Image.new("L", (16, 8))
    mask.paste(255, (0, 0, 4, 8))
    mask.save(tmp_path / "mask.png")
    arguments = ("--mask", tmp_path / "mask.png", "--label", 3, "-o", tmp_path / "out.png")
    done = cli("inpaint", digits_bundle, tmp_path / "wide.png", *arguments)
    assert done.exit_code == 2 and "its hole lies outside the central 8:8 part" in done.stderr


@pytest.mark.parametrize(("shade", "exit_code"), [(40000, 0), (255, 2)])
def test_masks_of_16_bits(
    digits_bundle: Path, folder: Path, cli: Cli, tmp_path: Path, shade: int, exit_code: int
):
    values = np.zeros((8, 8), np.uint16)
    values[4:] = shade
    Image.fromarray(values).save(tmp_path / "mask.png")
    arguments = ("--mask", tmp_path / "mask.png", "--label", 3, "-o", tmp_path / "out.npz")
    done = cli("inpaint", digits_bundle, folder / "three.png", *arguments)
    assert done.exit_code == exit_code, done.stderr
    if exit_code == 0:
        kept = np.load(tmp_path / "out.npz")["images"][0, 0, :4]
        with bcm_edge.load(digits_bundle) as bcm:
            assert np.array_equal(
                kept, read_images([folder / "three.png"], bcm.sample_shape).images[0, 0, :4]
            )


def test_a_mask_of_another_size(digits_bundle: Path, folder: Path, cli: Cli, tmp_path: Path):
    Image.new("L", (9, 8), 255).save(tmp_path / "mask.png")
    arguments = ("--mask", tmp_path / "mask.png", "--label", 3, "-o", tmp_path / "out.png")
    done = cli("inpaint", digits_bundle, folder / "three.png", *arguments)
    assert done.exit_code == 2 and "the mask has 9×8 pixels, but" in done.stderr
