"""bcm-edge inspect PICTURE: the text of PNG files, and the command that repeats them."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from agreement import assert_pixels_show
from archives import read_npz
from fixture_types import Cli
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from results import only_json, read_pixels

FACTS = {"command": "generate", "arguments": [], "options": {"--seed": "1"}, "model": "digits"}


def write_png(file: Path, text: str) -> Path:
    info = PngInfo()
    info.add_text("bcm-edge", text)
    Image.new("L", (8, 8)).save(file, pnginfo=info)
    return file


def test_the_command_of_a_picture_makes_it_again(cli: Cli, tmp_path: Path):
    arguments = ("-n", 2, "--label", "3,5", "--schedule", "80>2.4>0.002", "--seed", 7, "--scale", 1)
    assert cli("generate", "digits", *arguments, "-o", tmp_path / "two.png").exit_code == 0
    report = only_json(cli("inspect", tmp_path / "two.png", "--json").stdout)
    assert report["size"] == [16, 8]
    assert {name: report[name] for name in ("command", "model", "precision", "schedule", "nfe")} == {
        "command": "generate",
        "model": "digits",
        "precision": "fp32",
        "schedule": "80>2.4>0.002",
        "nfe": 2,
    }
    assert (report["seeds"], report["labels"], report["images"]) == ([7, 8], ["3", "5"], 2)
    bundle = only_json(cli("inspect", "digits", "--json").stdout)
    assert report["bundle_sha256"] == bundle["fingerprints"]["fp32"]
    assert f"repeat it:  {report['repeat']}\n" in cli("inspect", tmp_path / "two.png").stdout

    program, *words = shlex.split(report["repeat"])
    assert program == "bcm-edge" and words[-2:] == ["-o", "OUTPUT.png"]
    assert cli(*words[:-1], tmp_path / "again.npz").exit_code == 0
    again = read_npz(tmp_path / "again.npz")["images"]
    pixels = read_pixels(tmp_path / "two.png")
    assert_pixels_show(np.stack([pixels[:, :8], pixels[:, 8:]]), again[:, 0])


def test_a_picture_contains_no_path_and_no_name_of_a_file(
    digits_bundle: Path, pictures: Path, cli: Cli, tmp_path: Path
):
    secret = tmp_path / "alice"
    secret.mkdir()
    for name in ("three.png", "hole.png"):
        (secret / name).write_bytes((pictures / name).read_bytes())
    (secret / "my.bundle").symlink_to(digits_bundle)
    options = ("--mask", secret / "hole.png", "--label", 3, "--log-file", secret / "log", "-v")
    files = (secret / "my.bundle", secret / "three.png", "-o", secret / "filled.png")
    assert cli("inpaint", *files, *options).exit_code == 0
    text = (secret / "filled.png").read_bytes()
    assert not re.search(rb"alice|my\.bundle|three|hole|filled|tmp", text)
    repeated = only_json(cli("inspect", secret / "filled.png", "--json").stdout)["repeat"]
    options_again = "--mask FILE --seed 0 --label 3 --precision fp32 -o OUTPUT.png"
    assert repeated == f"bcm-edge inpaint BUNDLE IMAGES {options_again}"


def test_images_of_a_folder_have_their_own_seed_and_label(digits_bundle: Path, cli: Cli, tmp_path: Path):
    arguments = ("-n", 3, "--seed", 40, "--label", "all", "-o", tmp_path / "out")
    assert cli("generate", digits_bundle, *arguments).exit_code == 0
    report = only_json(cli("inspect", tmp_path / "out" / "000002.png", "--json").stdout)
    assert (report["seeds"], report["labels"]) == ([42], ["2"])


def test_without_metadata_nothing_but_the_scale_is_written(digits_bundle: Path, cli: Cli, tmp_path: Path):
    options = ("--label", 3, "--no-metadata", "-o", tmp_path / "one.png")
    assert cli("generate", digits_bundle, *options).exit_code == 0
    text = json.loads(Image.open(tmp_path / "one.png").info["bcm-edge"])
    assert set(text) == {"version", "scale"}


@pytest.mark.parametrize(
    "text",
    [
        "not JSON",
        "[]",
        "[" * 5000,
        '{"nfe": "many", "seeds": [NaN], "schedule": 3, "command": 4}',
        json.dumps({"model": "x" * 30_000}),
    ],
)
def test_a_text_that_is_not_from_bcm_edge_shows_nothing(cli: Cli, tmp_path: Path, text: str):
    report = only_json(cli("inspect", write_png(tmp_path / "other.png", text), "--json").stdout)
    assert report == {"picture": f"{tmp_path}/other.png", "size": [8, 8], "repeat": None}


@pytest.mark.parametrize(
    ("changed", "repeated"),
    [
        (
            {"options": {"--schedule": "a; rm -rf ~ $(id) `id`'"}},
            """bcm-edge generate digits --schedule 'a; rm -rf ~ $(id) `id`'"'"'' -o OUTPUT.png""",
        ),
        (
            {"options": {"--latents": "/etc/passwd", "-o": "/etc/passwd", "--force": "", "--evil": "1"}},
            "bcm-edge generate digits --latents FILE -o OUTPUT.png",
        ),
        ({"model": "x; rm -rf ~", "arguments": ["$(id)"]}, "bcm-edge generate BUNDLE --seed 1 -o OUTPUT.png"),
        ({"options": {"--seed": "1\x1b[2J"}}, None),
        ({"command": "train"}, None),
        ({"command": "rm"}, None),
        ({"options": []}, None),
        ({"arguments": {}}, None),
    ],
)
def test_a_text_of_somebody_else_cannot_run_anything(
    cli: Cli, tmp_path: Path, changed: dict[str, Any], repeated: str | None
):
    file = write_png(tmp_path / "other.png", json.dumps({**FACTS, **changed}))
    assert only_json(cli("inspect", file, "--json").stdout)["repeat"] == repeated


def test_control_characters_are_escaped_and_long_values_cut(cli: Cli, tmp_path: Path):
    values = {"schedule": "80\x1b[2J\u202e>", "model": "m" * 500, "labels": ["\r\n"] * 30}
    shown = cli("inspect", write_png(tmp_path / "other.png", json.dumps(values))).stdout
    assert all(line.isprintable() for line in shown.splitlines())
    assert "schedule: 80\\x1b[2J\\u202e>" in shown and "m" * 80 not in shown and "20 more" in shown


def test_other_pictures_and_damaged_files(cli: Cli, tmp_path: Path):
    Image.new("RGB", (9, 8)).save(tmp_path / "photo.jpg")
    result = cli("inspect", tmp_path / "photo.jpg")
    assert result.stdout.startswith(f"{tmp_path}/photo.jpg: 9×8 pixels\nno text of bcm-edge")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    result = cli("inspect", tmp_path / "broken.png")
    assert result.exit_code == 2 and "not a readable image" in result.stderr
