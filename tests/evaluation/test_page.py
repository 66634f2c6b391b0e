"""The page that one quick run of bcm-edge evaluate writes."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from evaluation_page import QUICK, Reader
from fixture_types import Cli

from bcm_edge.model.checkpoint import save_checkpoint
from bcm_edge.model.preconditioning import Denoiser
from bcm_edge.training.data import load_digits
from bcm_edge.training.networks import network_for

SCHEDULES = ("one-step", "ancestral-2", "zigzag-3", "mixture-4", "invert-1", "invert-2")


pytestmark = pytest.mark.slow  # one whole evaluation


@pytest.fixture(scope="module")
def baseline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("baseline") / "edm.safetensors"
    torch.manual_seed(0)
    config = network_for(load_digits("train"), 8)
    save_checkpoint(
        file,
        Denoiser(config).network.state_dict(),
        config,
        {},
        {"objective": "edm", "steps": 7, "init": None},
    )
    return file


@pytest.fixture(scope="module")
def quick(
    digits_bundle: Path, baseline: Path, stand_in: None, cli: Cli, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, dict[str, Any], str]:
    """(page, JSON, progress) of a quick run on a bundle with a difficult name."""
    folder = tmp_path_factory.mktemp("evaluate")
    bundle = shutil.copytree(digits_bundle, folder / "<b>d & d.bundle")
    options = (
        "--data",
        "digits",
        "--baseline",
        baseline,
        *QUICK,
        "--seed",
        5,
        "-o",
        folder / "page.html",
        "--json",
    )
    ended = cli("evaluate", bundle, *options)
    assert ended.exit_code == 0, ended.output
    assert ended.stdout.count("\n") == 1
    return (
        (folder / "page.html").read_text(encoding="utf-8"),
        json.loads(ended.stdout, parse_constant=pytest.fail),
        ended.stderr,
    )


def test_the_page_needs_nothing_else(quick):
    page, _, _ = quick
    reader = Reader(page)
    assert reader.open == []
    assert not {"script", "link", "iframe", "object", "base"} & {tag for tag, _ in reader.tags}
    pictures = [attributes["src"] for tag, attributes in reader.tags if tag == "img"]
    assert len(pictures) > 20 and all(str(source).startswith("data:image/png;base64,") for source in pictures)
    references = [
        value
        for _, attributes in reader.tags
        for name, value in attributes.items()
        if name.endswith(("href", "srcset"))
    ]
    assert references and all(str(value).startswith("#") for value in references)
    style = " ".join(re.findall(r"<style.*?</style>", page, re.DOTALL))
    assert "@import" not in style and "url(" not in style
    assert set(re.findall(r'https?://[^"\s<]+', page)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }  # names, not places


def test_the_page_shows_everything(quick):
    page, told, _ = quick
    text = Reader(page).text
    for word in (
        *SCHEDULES,
        "Heun 18",
        "DDIM 35",
        "4 moves, levels inserted",
        "training images",
        "0.07>1.25>80",
        "759,489 parameters",
    ):
        assert word in text
    for heading in (
        "Claims",
        "Generation",
        "Inversion",
        "Pictures",
        "Tasks",
        "Latency beside quality",
        "To make this page again",
    ):
        assert heading in text
    for word in (
        "Holes",
        "from seed 5",
        "right on the held-out images",
        "objective edm, steps 7",
        "trained on digits (train)",
        "onnxruntime",
    ):
        assert word in text
    assert page.count("<svg") == 2
    notes = [exhibit["note"] for shown in told["exhibits"].values() for exhibit in shown if exhibit["note"]]
    assert len(notes) >= 5 and all(note in text for note in notes)


def test_names_are_escaped(quick):
    page, _, _ = quick
    assert "<b>" not in page
    assert "&lt;b&gt;d &amp; d.bundle: how good it is" in page


def test_the_command_line_is_told_as_it_was_given(quick, baseline):
    page, told, _ = quick
    command = told["facts"]["Made by"]["command"]
    assert shlex.split(command)[:2] == ["bcm-edge", "evaluate"] and shlex.split(command)[2].endswith(
        "/<b>d & d.bundle"
    )
    assert " --data digits --output " in command
    assert command.endswith(
        f"page.html --baseline {baseline} --samples 60 --reconstructed 20 --seed 5 --json"
    )  # and no defaults
    assert Reader(page).text.count(command) == 2


def test_json_and_page_agree(quick):
    page, told, _ = quick
    text = Reader(page).text
    assert [s["name"] for s in told["generation"][:4]] == list(SCHEDULES[:4])
    assert all(s["spread"] > 0 for s in told["generation"] if s["nfe"] <= 10 or s["name"] == "Heun 18")
    assert [s["nfe"] for s in told["generation"][4:]] == [3, 5, 9, 17, 35, 79, 1, 2, 3, 5, 10, 20, 35]
    for sampled in told["generation"]:
        assert sampled["ratio"] == pytest.approx(np.mean([score["ratio"] for score in sampled["scores"]]))
        spread = f" ± {sampled['spread']:.2f}" if sampled["spread"] else ""
        assert (
            f" {sampled['nfe']} {sampled['ratio'] * told['floor']:.3g} {sampled['ratio']:.2f}{spread} "
            in text
        )
    for inverted in told["inversion"]:
        assert f" {inverted['nfe']} {inverted['mse']:#.3g} ± {inverted['error']:#.2g} " in text
    assert {i["nfe"] for i in told["inversion"] if i["line"].startswith("BCM")} == {2, 3, 4, 5, 6}
    for claim in told["claims"]:
        assert all(re.sub(r"\s+", " ", words) in text for words in (claim["title"], *claim["sentences"]))
    assert {(t["name"], t["batch"]) for t in told["latency"]} == {
        (name, batch) for name in SCHEDULES for batch in (1, 16)
    }
    for time in told["latency"]:
        assert 0 < time["low"] <= time["seconds"] <= time["high"]
        assert f"{time['seconds']:#.2g} (" in text


def test_what_was_measured_is_plausible(quick):
    """Of the model that ships; a random network is far worse at both."""
    _, told, _ = quick
    ours = [s["ratio"] for s in told["generation"] if s["family"] == "BCM"]
    assert max(ours) < 3 < min(s["ratio"] for s in told["generation"] if s["family"] != "BCM")
    errors = {i["name"]: i["mse"] for i in told["inversion"]}
    assert errors["invert-2, one-step"] < errors["invert-1, one-step"] < 0.006
    assert [claim["verdict"] for claim in told["claims"][:1]] == ["reached"]


def test_progress_says_what_is_being_measured(quick):
    _, _, progress = quick
    assert "judge: fitted to 1257 images; measured against 360 others" in progress
    assert "generation: 60 images × 3, one-step (1 call)" in progress
    assert "tasks: holes" in progress
    assert "inversion: 20 held-out images, DDIM 35 (70 calls)" in progress


def test_a_baseline_that_was_not_trained_alike_is_said(quick):
    page, values, progress = quick
    said = "the model and the baseline were not trained alike: 3400 steps against 7; the claims compare that, too"
    assert f"caution: {said}" in progress
    assert values["facts"]["Baseline"]["caution"] == said
    assert said in Reader(page).text
