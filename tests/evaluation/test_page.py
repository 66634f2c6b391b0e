"""The page that one quick run of bcm-edge evaluate writes."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import yaml
from evaluation_page import QUICK, Reader
from fixture_types import Cli
from results import only_json

from bcm_edge.model.checkpoint import save_checkpoint
from bcm_edge.model.preconditioning import Denoiser
from bcm_edge.training.data import load_digits
from bcm_edge.training.networks import network_for

SCHEDULES = ("one-step", "ancestral-2", "zigzag-3", "mixture-4", "invert-1", "invert-2")
HEADINGS = (
    *("Claims", "Generation", "Inversion", "Pictures", "Tasks"),
    *("Latency beside quality", "To make this page again"),
)
WORDS = (
    *("Heun 18", "DDIM 35", "4 moves, levels inserted", "training images", "0.07>1.25>80"),
    *("759,489 parameters", "Holes", "from seed 5", "right on the held-out images"),
    *("objective edm, steps 7", "trained on digits (train)", "onnxruntime"),
)


pytestmark = pytest.mark.slow  # all tests need one whole evaluation


class Run(NamedTuple):
    """The files that one run of bcm-edge evaluate wrote."""

    page: str  # the HTML page
    values: dict[str, Any]  # the JSON on stdout
    progress: str  # the lines on stderr


@pytest.fixture(scope="module")
def baseline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A denoiser of random weights. Its images are noise, but they are measured like any others."""
    file = tmp_path_factory.mktemp("baseline") / "edm.safetensors"
    torch.manual_seed(0)
    config = network_for(load_digits("train"), 8)
    provenance = {"objective": "edm", "steps": 7, "batch": 64, "init": None}
    save_checkpoint(file, Denoiser(config).network.state_dict(), config, {}, provenance)
    return file


@pytest.fixture(scope="module")
def quick(
    digits_bundle: Path, baseline: Path, stand_in: None, cli: Cli, tmp_path_factory: pytest.TempPathFactory
) -> Run:
    """A quick run on a bundle whose name needs escaping."""
    folder = tmp_path_factory.mktemp("evaluate")
    bundle = shutil.copytree(digits_bundle, folder / "<b>d & d.bundle")
    page = folder / "page.html"
    options = ("--data", "digits", "--baseline", baseline, *QUICK, "--seed", 5, "-o", page, "--json")
    result = cli("evaluate", bundle, *options)
    assert result.exit_code == 0, result.output
    assert result.stdout.count("\n") == 1
    return Run(page.read_text(encoding="utf-8"), only_json(result.stdout), result.stderr)


def test_page_loads_no_other_file(quick: Run):
    page, _, _ = quick
    reader = Reader(page)
    assert reader.open == []
    assert not {"script", "link", "iframe", "object", "base"} & {tag for tag, _ in reader.tags}
    pictures = [attributes["src"] for tag, attributes in reader.tags if tag == "img"]
    assert len(pictures) > 20
    assert all(str(source).startswith("data:image/png;base64,") for source in pictures)
    attributes = [item for _, attributes in reader.tags for item in attributes.items()]
    references = [value for name, value in attributes if name.endswith(("href", "srcset"))]
    assert references
    assert all(str(value).startswith("#") for value in references)
    style = " ".join(re.findall(r"<style.*?</style>", page, re.DOTALL))
    assert "@import" not in style
    assert "url(" not in style
    # These are the names of namespaces. Nothing is loaded from there.
    namespaces = {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert set(re.findall(r'https?://[^"\s<]+', page)) <= namespaces


def test_page_shows_all_sections_and_facts(quick: Run):
    page, values, _ = quick
    text = Reader(page).text
    for expected in (*SCHEDULES, *HEADINGS, *WORDS):
        assert expected in text
    assert page.count("<svg") == 2
    exhibits = [exhibit for section in values["exhibits"].values() for exhibit in section]
    notes = [exhibit["note"] for exhibit in exhibits if exhibit["note"]]
    assert len(notes) >= 5
    assert all(note in text for note in notes)


def test_card_reads_the_json(quick: Run, bundle_copy: Path, cli: Cli, tmp_path: Path):
    file = tmp_path / "evaluation.json"
    file.write_text(json.dumps(quick.values))
    result = cli("card", bundle_copy, "--license", "mit", "--evaluation", file)
    assert result.exit_code == 0, result.output
    front = yaml.safe_load((bundle_copy / "README.md").read_text(encoding="utf-8").split("---\n")[1])
    tasks = [one["task"]["name"] for one in front["model-index"][0]["results"]]
    assert "generation: mixture-4, 4 network calls" in tasks
    assert "inversion and reconstruction: invert-2, one-step, 3 network calls" in tasks
    assert not any("Heun" in task or "inserted" in task for task in tasks)


def test_names_are_escaped(quick: Run):
    page, _, _ = quick
    assert "<b>" not in page
    assert "&lt;b&gt;d &amp; d.bundle: quality" in page


def test_page_shows_the_command_line(quick: Run, baseline: Path):
    page, values, _ = quick
    command = values["facts"]["Made by"]["command"]
    program, name, bundle, *_ = shlex.split(command)
    assert (program, name) == ("bcm-edge", "evaluate")
    assert bundle.endswith("/<b>d & d.bundle")
    assert " --data digits --output " in command
    options = f"--baseline {baseline} --samples 60 --reconstructed 20 --seed 5 --json"  # without defaults
    assert command.endswith(f"page.html {options}")
    assert Reader(page).text.count(command) == 2


def test_json_and_page_have_the_same_numbers(quick: Run):
    page, values, _ = quick
    text = Reader(page).text
    assert [s["name"] for s in values["generation"][:4]] == list(SCHEDULES[:4])
    assert all(s["spread"] > 0 for s in values["generation"] if s["nfe"] <= 10 or s["name"] == "Heun 18")
    assert [s["nfe"] for s in values["generation"][4:]] == [3, 5, 9, 17, 35, 79, 1, 2, 3, 5, 10, 20, 35]
    for sampled in values["generation"]:
        assert sampled["ratio"] == pytest.approx(np.mean([score["ratio"] for score in sampled["scores"]]))
        distance, ratio = sampled["ratio"] * values["floor"], sampled["ratio"]
        spread = f" ± {sampled['spread']:.2f}" if sampled["spread"] else ""
        assert "seconds" not in sampled
        assert f" {sampled['nfe']} {distance:.3g} {ratio:.2f}{spread} " in text
    for inverted in values["inversion"]:
        assert f" {inverted['nfe']} {inverted['mse']:#.3g} ± {inverted['error']:#.2g} " in text
    assert {i["nfe"] for i in values["inversion"] if i["line"].startswith("BCM")} == {2, 3, 4, 5, 6}
    for claim in values["claims"]:
        assert all(re.sub(r"\s+", " ", words) in text for words in (claim["title"], *claim["sentences"]))
    measured = {(time["name"], time["batch"]) for time in values["latency"]}
    assert measured == {(name, batch) for name in SCHEDULES for batch in (1, 16)}
    for time in values["latency"]:
        assert 0 < time["low"] <= time["seconds"] <= time["high"]
        assert f"{time['seconds']:#.2g} (" in text


def test_measured_numbers_are_plausible(quick: Run):
    """The shipped model is far better than random weights at generation and inversion."""
    _, values, _ = quick
    ours = [s["ratio"] for s in values["generation"] if s["family"] == "BCM"]
    assert max(ours) < 3 < min(s["ratio"] for s in values["generation"] if s["family"] != "BCM")
    errors = {i["name"]: i["mse"] for i in values["inversion"]}
    assert errors["invert-2, one-step"] < errors["invert-1, one-step"] < 0.006
    assert values["claims"][0]["verdict"] == "reached"


def test_progress_names_the_current_measurement(quick: Run):
    _, _, progress = quick
    assert "judge: fitted to 1257 images; 360 others to measure against" in progress
    assert "generation: 60 images × 3, one-step (1 call)" in progress
    assert "tasks: holes" in progress
    assert "inversion: 20 held-out images, DDIM 35 (70 calls)" in progress


def test_page_warns_of_a_baseline_that_was_trained_differently(quick: Run):
    page, values, progress = quick
    difference = "the model and the baseline were trained differently: 3400 steps against 7"
    sentence = f"{difference}; the claims compare this difference as well"
    assert f"caution: {sentence}" in progress
    assert values["facts"]["Baseline"]["caution"] == sentence
    assert sentence in Reader(page).text


def test_verdicts_state_the_unequal_computation(quick: Run):
    page, values, _ = quick
    # 7 steps of 64 images; the model was trained for 3400, each with three evaluations per image.
    caveat = (
        "The baseline used less computation: its training evaluated the network on 448 images, that of the"
        " BCM on 652,800."
    )
    assert [claim["caveat"] for claim in values["claims"]] == [caveat, caveat, "", ""]
    assert Reader(page).text.count(f"Caveat: {caveat}") == 2
