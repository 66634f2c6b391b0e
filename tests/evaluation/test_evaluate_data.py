"""Data, baselines and outputs that bcm-edge evaluate refuses or warns of."""

from __future__ import annotations

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

pytestmark = pytest.mark.slow  # one whole evaluation


def npz(path: Path, images: tuple[int, ...], labels: int | None = None) -> Path:
    """Random pictures, with labels below a number."""
    random = np.random.default_rng(images[0])
    arrays: dict[str, np.ndarray] = {"images": random.integers(0, 256, images, dtype=np.uint8)}
    if labels is not None:
        arrays["labels"] = np.arange(images[0]) % labels
    write_npz(path, arrays)
    return path


def test_data_that_does_not_fit_the_model_is_refused(digits_bundle: Path, cli: Cli, tmp_path: Path):
    page = tmp_path / "page.html"
    wrong = npz(tmp_path / "wrong.npz", (200, 16, 16), 10)
    assert "images of 1 × 16 × 16; the model takes 1 × 8 × 8" in refusal(
        cli("evaluate", digits_bundle, "--data", wrong, "-o", page)
    )
    ended = cli("evaluate", digits_bundle, "--data", "digits", "--test", wrong, "-o", page)
    assert "wrong.npz: images of 1 × 16 × 16" in refusal(ended)
    few = npz(tmp_path / "few.npz", (100, 8, 8), 10)
    assert "20 images are held out" in refusal(cli("evaluate", digits_bundle, "--data", few, "-o", page))
    assert "has no labels, and the model has 10 classes" in refusal(
        cli("evaluate", digits_bundle, "--data", npz(tmp_path / "bare.npz", (200, 8, 8)), "-o", page)
    )
    assert not page.exists()


def test_data_without_labels_wants_inception(cli: Cli, tmp_path: Path):
    """A model without classes, trained and exported for that."""
    data = npz(tmp_path / "bare.npz", (200, 8, 8))
    model, bundle = tmp_path / "m.safetensors", tmp_path / "m.bundle"
    train = ("--data", data, "--steps", 2, "--batch", 2, "--channels", 8, "--intervals", 10)
    assert cli("train", *train, "-o", model).exit_code == 0
    assert cli("export", model, "-o", bundle).exit_code == 0
    message = refusal(cli("evaluate", bundle, "--data", data, "-o", tmp_path / "page.html"))
    assert "bare.npz: has no labels" in message and "--inception WEIGHTS" in message


def test_what_the_model_learnt_is_no_held_out_data_and_the_page_says_so(
    stand_in: None, cli: Cli, tmp_path: Path
):
    data, model, bundle, page = (
        npz(tmp_path / "d.npz", (200, 8, 8), 4),
        tmp_path / "m.safetensors",
        tmp_path / "m.bundle",
        tmp_path / "p.html",
    )
    train = ("--data", data, "--steps", 2, "--batch", 2, "--channels", 8, "--intervals", 10)
    assert cli("train", *train, "-o", model).exit_code == 0
    assert cli("export", model, "-o", bundle).exit_code == 0
    ended = cli("evaluate", bundle, "--data", data, *QUICK, "-o", page)
    assert ended.exit_code == 0, ended.output
    said = (
        f"the model was trained on all of {data}, so the held-out images are not new to it; "
        "give others with --test"
    )
    assert f"caution: {said}" in ended.stderr
    assert said in Reader(page.read_text()).text


def test_labels_that_no_classifier_can_be_fitted_to(digits_bundle: Path, cli: Cli, tmp_path: Path):
    options = ("-o", tmp_path / "page.html")
    one = npz(tmp_path / "one.npz", (200, 8, 8), 1)
    assert "one.npz: has one class" in refusal(cli("evaluate", digits_bundle, "--data", one, *options))
    few, all_of_them = npz(tmp_path / "few.npz", (200, 8, 8), 4), npz(tmp_path / "all.npz", (201, 8, 8), 10)
    ended = cli("evaluate", digits_bundle, "--data", few, "--test", all_of_them, *options)
    assert "all.npz: has a label 9 that no image of few.npz has" in refusal(ended)


def test_a_baseline_must_be_a_denoiser_of_the_same_images(digits_bundle: Path, cli: Cli, tmp_path: Path):
    options = (digits_bundle, "--data", "digits", "-o", tmp_path / "page.html", "--baseline")
    assert "is not a denoiser; make one with: bcm-edge train --objective edm" in refusal(
        cli("evaluate", *options, shipped_checkpoint())
    )
    config = network_for(load_digits("train"), 8)
    other = config.__class__.from_json({**config.to_json(), "num_classes": 4})
    save_checkpoint(
        tmp_path / "e.safetensors", Denoiser(other).network.state_dict(), other, {}, {"objective": "edm"}
    )
    message = refusal(cli("evaluate", *options, tmp_path / "e.safetensors"))
    assert message.endswith("denoises images of 1×8×8, 4 classes; the bundle makes 1×8×8, 10 classes")


def test_a_page_that_exists_is_kept(digits_bundle: Path, stand_in: None, cli: Cli, tmp_path: Path):
    (tmp_path / "page.html").write_text("mine")
    ended = cli("evaluate", digits_bundle, "--data", "digits", *QUICK, "-o", tmp_path / "page.html")
    assert "page.html exists already; --force replaces it" in refusal(ended)
    assert "judge" not in ended.stderr  # said before anything is measured
    assert (tmp_path / "page.html").read_text() == "mine"


def test_more_samples_than_images_are_refused(digits_bundle: Path, cli: Cli, tmp_path: Path):
    ended = cli(
        "evaluate", digits_bundle, "--data", "digits", "--samples", 2000, "-o", tmp_path / "page.html"
    )
    assert "cannot take 2000 of its 1257 images" in refusal(ended)
