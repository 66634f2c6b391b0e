"""bcm-edge evaluate: the words made of numbers, the curves, and the page that one quick run writes.

The baseline is a small network of random weights: what it makes is worthless, and is measured like any other. The tasks' exhibits are a
stand-in; they are tested where they are made.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from archives import write_npz
from fixture_types import Cli
from refusals import refusal

from bcm_edge.evaluation import comparison
from bcm_edge.evaluation.exhibits import Curves, Gallery, Point, Table
from bcm_edge.evaluation.plots import KNOWN, svg
from bcm_edge.evaluation.report import Page, Section, render, strips, values
from bcm_edge.evaluation.rivals import with_level_inserted
from bcm_edge.model.checkpoint import save_checkpoint, shipped_checkpoint
from bcm_edge.model.preconditioning import Denoiser
from bcm_edge.runtime.checks import benchmark
from bcm_edge.runtime.pictures.writing import heat
from bcm_edge.runtime.schedule import parse_schedule
from bcm_edge.runtime.storage.manifest import ModelFacts
from bcm_edge.training.data import load_digits
from bcm_edge.training.networks import network_for

DIGITS = ModelFacts("digits", (1, 8, 8), 10, 0, {})
PLAIN = ModelFacts("plain", (1, 8, 8), None, 0, {})
SCHEDULES = ("one-step", "ancestral-2", "zigzag-3", "mixture-4", "invert-1", "invert-2")
QUICK = ("--samples", 60, "--reconstructed", 20)

pytestmark = pytest.mark.slow  # one whole evaluation


def line(*pairs: tuple[float, float], spread: float | None = None) -> list[Point]:
    return [Point(x, y, spread) for x, y in pairs]


# ---- what is compared


def test_levels_are_inserted_where_they_lie_farthest_apart():
    third = with_level_inserted(parse_schedule("+0.07 0.07>1.25>80"))  # √(1.25 · 80) = 10
    assert str(third) == "+0.07 0.07>1.25>10>80"
    assert str(with_level_inserted(third)) == "+0.07 0.07>0.296>1.25>10>80"


def test_heat_goes_from_black_over_red_and_yellow_to_white():
    colours = heat(np.array([[[[0, 1 / 3, 2 / 3, 1, 7]]]]))[0, :, 0].T
    assert colours.tolist() == [[-1, -1, -1], [1, -1, -1], [1, 1, -1], [1, 1, 1], [1, 1, 1]]


# ---- curves


def test_curves_are_svg_with_every_name():
    lines = {
        "BCM": line((1, 2), (4, 1), spread=0.1),
        "Heun <2nd>": line((3, 9)),
        "real images": line((1, 1), (4, 1)),
        "_$a$": line((2, 2)),
    }
    drawn = svg(Curves("a & b", "network calls", "cost in $", lines, log_x=True, log_y=True))
    root = ElementTree.fromstring(drawn)
    words = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"BCM", "Heun <2nd>", "real images", "network calls"} <= set(words)
    assert any("_$a$" in str(word) for word in words)
    assert "width" not in root.attrib and root.attrib["viewBox"]
    assert svg(Curves("a & b", "network calls", "cost in $", lines, log_x=True, log_y=True)) == drawn
    ids, references = (
        set(re.findall(r'\bid="([^"]+)"', drawn)),
        set(re.findall(r'(?:href="|url\()#([^")]+)', drawn)),
    )
    assert references and references <= ids
    assert not ids & set(re.findall(r'\bid="([^"]+)"', svg(Curves("c", "x", "y", lines))))


def test_samplers_have_the_same_colour_in_every_plot():
    for lines in ({"DDIM": line((1, 2))}, {"BCM": line((1, 2)), "other": line((2, 2)), "DDIM": line((1, 3))}):
        assert KNOWN["DDIM"] in svg(Curves("t", "x", "y", lines))


# ---- the page


class Reader(HTMLParser):
    """Every tag with its attributes, and all text outside <style>."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.said: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.said.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.said))


def test_every_kind_of_exhibit_is_shown_with_its_note():
    images = np.linspace(-1, 1, 5 * 3 * 4 * 4, dtype=np.float32).reshape(5, 3, 4, 4)
    gallery = Gallery("Pictures <1>", images, 3, ["first & row"], "gallery's note")
    shown = [
        Table("Rows", ["a<b"], [["<i>"], [np.float32(0.5)]], "table's note"),
        gallery,
        Curves("C", "x", "y", {}, note="curves' note"),
    ]
    page = Reader(render(Page("<T>", {}, [], [Section("S & S", shown)], ["x > y"])))
    assert page.open == []
    for word in (
        "<T>",
        "S & S",
        "a<b",
        "<i>",
        "0.5",
        "table's note",
        "Pictures <1>",
        "first & row",
        "gallery's note",
        "curves' note",
        "x > y",
    ):
        assert word in page.text
    assert [attributes["alt"] for tag, attributes in page.tags if tag == "img"] == [
        "first & row",
        "Pictures <1>",
    ]
    assert [strip.width for strip in strips(gallery)] == [
        14 * 14
    ] * 2  # 3 images of 4 pixels with 2 between, 14 times as large
    assert json.loads(json.dumps(values(shown[0])))["rows"] == [["<i>"], [0.5]]


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
def stand_in() -> Iterator[None]:
    """Tasks that take no time, and latencies measured in passing."""

    def task_exhibits(
        bcm: Any, judge: Any, originals: np.ndarray, labels: np.ndarray, seed: int, report: Any
    ) -> list[Any]:
        report("holes")
        assert len(originals) == len(labels) == 20
        return [Table("Holes", ("hole", "error"), [("half", np.float64(0.25))], f"from seed {seed}")]

    module = ModuleType("bcm_edge.evaluation.tasks")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "task_exhibits", task_exhibits, raising=False)
        patch.setitem(sys.modules, module.__name__, module)
        patch.setattr(benchmark, "TURN", 0.01)
        patch.setattr(comparison, "LATENCY_SECONDS", 0.02)
        yield


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


# ---- refusals


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
    said = f"the model learnt all of {data}, so the held-out images are not new to it; --test gives others"
    assert f"caution: {said}" in ended.stderr
    assert said in Reader(page.read_text()).text


def test_a_baseline_that_was_not_trained_alike_is_said(quick):
    page, values, progress = quick
    said = "the model and the baseline were not trained alike: 3400 steps against 7; the claims compare that, too"
    assert f"caution: {said}" in progress
    assert values["facts"]["Baseline"]["caution"] == said
    assert said in Reader(page).text


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
