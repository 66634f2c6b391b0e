"""Data, baselines and outputs that bcm-edge evaluate refuses or warns of."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from archives import write_npz
from evaluation_page import QUICK, Reader
from fixture_types import Cli
from refusals import refusal

from bcm_edge.model.checkpoint import save_checkpoint, shipped_checkpoint
from bcm_edge.model.preconditioning import Denoiser
from bcm_edge.training.data import load_digits
from bcm_edge.training.networks import network_for

pytestmark = pytest.mark.slow


def npz(path: Path, images: tuple[int, ...], labels: int | None = None) -> Path:
    """Write random images of a shape, with labels below a number or without labels. Return the path."""
    random = np.random.default_rng(images[0])
    arrays: dict[str, np.ndarray] = {"images": random.integers(0, 256, images, dtype=np.uint8)}
    if labels is not None:
        arrays["labels"] = np.arange(images[0]) % labels
    write_npz(path, arrays)
    return path


def test_data_that_does_not_fit_the_model_is_refused(digits_bundle: Path, cli: Cli, tmp_path: Path):
    page = tmp_path / "page.html"
    wrong = npz(tmp_path / "wrong.npz", (200, 16, 16), 10)
    few = npz(tmp_path / "few.npz", (100, 8, 8), 10)
    bare = npz(tmp_path / "bare.npz", (200, 8, 8))

    def refused(*options: object) -> str:
        return refusal(cli("evaluate", digits_bundle, *options, "-o", page))

    assert "images of 1 × 16 × 16; the model takes 1 × 8 × 8" in refused("--data", wrong)
    assert "wrong.npz: images of 1 × 16 × 16" in refused("--data", "digits", "--test", wrong)
    assert "20 images are held out" in refused("--data", few)
    assert "has no labels, and the model has 10 classes" in refused("--data", bare)
    assert not page.exists()


def trained_bundle(cli: Cli, data: Path, folder: Path) -> Path:
    """Train a network for two steps and export it. Return the bundle."""
    model, bundle = folder / "m.safetensors", folder / "m.bundle"
    options = ("--data", data, "--steps", 2, "--batch", 2, "--channels", 8, "--intervals", 10)
    assert cli("train", *options, "-o", model).exit_code == 0
    assert cli("export", model, "-o", bundle).exit_code == 0
    return bundle


def test_data_without_labels_needs_inception(cli: Cli, tmp_path: Path):
    """The test trains and exports a model without classes."""
    data = npz(tmp_path / "bare.npz", (200, 8, 8))
    bundle = trained_bundle(cli, data, tmp_path)
    message = refusal(cli("evaluate", bundle, "--data", data, "-o", tmp_path / "page.html"))
    assert "bare.npz: has no labels" in message
    assert "--inception WEIGHTS" in message


def test_page_warns_of_held_out_images_from_the_training_data(stand_in: None, cli: Cli, tmp_path: Path):
    data, page = npz(tmp_path / "d.npz", (200, 8, 8), 4), tmp_path / "p.html"
    bundle = trained_bundle(cli, data, tmp_path)
    result = cli("evaluate", bundle, "--data", data, *QUICK, "-o", page)
    assert result.exit_code == 0, result.output
    sentence = f"the model was trained on {data}, the held-out images included; give others with --test"
    assert f"caution: {sentence}" in result.stderr
    assert sentence in Reader(page.read_text()).text


def test_labels_without_enough_classes_are_refused(digits_bundle: Path, cli: Cli, tmp_path: Path):
    options = ("-o", tmp_path / "page.html")
    one = npz(tmp_path / "one.npz", (200, 8, 8), 1)
    assert "one.npz: has only one class" in refusal(cli("evaluate", digits_bundle, "--data", one, *options))
    few = npz(tmp_path / "few.npz", (200, 8, 8), 4)
    ten = npz(tmp_path / "ten.npz", (201, 8, 8), 10)
    result = cli("evaluate", digits_bundle, "--data", few, "--test", ten, *options)
    assert "ten.npz: label 9 does not occur in few.npz" in refusal(result)


def test_baseline_must_be_a_denoiser_of_the_same_images(digits_bundle: Path, cli: Cli, tmp_path: Path):
    options = (digits_bundle, "--data", "digits", "-o", tmp_path / "page.html", "--baseline")
    message = refusal(cli("evaluate", *options, shipped_checkpoint()))
    assert "is not a denoiser; make one with: bcm-edge train --objective edm" in message
    config = network_for(load_digits("train"), 8)
    other, weights = replace(config, num_classes=4), tmp_path / "e.safetensors"
    save_checkpoint(weights, Denoiser(other).network.state_dict(), other, {}, {"objective": "edm"})
    message = refusal(cli("evaluate", *options, tmp_path / "e.safetensors"))
    assert "the baseline makes images of 1×8×8, 4 classes, the bundle of 1×8×8, 10 classes" in message


def test_page_that_exists_is_kept(digits_bundle: Path, stand_in: None, cli: Cli, tmp_path: Path):
    (tmp_path / "page.html").write_text("mine")
    result = cli("evaluate", digits_bundle, "--data", "digits", *QUICK, "-o", tmp_path / "page.html")
    assert "page.html exists already; --force replaces it" in refusal(result)
    assert "judge" not in result.stderr  # it is refused before anything is measured
    assert (tmp_path / "page.html").read_text() == "mine"


def test_more_samples_than_images_are_refused(digits_bundle: Path, cli: Cli, tmp_path: Path):
    options = ("--data", "digits", "--samples", 2000, "-o", tmp_path / "page.html")
    result = cli("evaluate", digits_bundle, *options)
    assert "cannot take 2000 of its 1257 images" in refusal(result)
