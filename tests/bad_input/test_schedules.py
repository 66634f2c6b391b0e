"""Schedules that cannot be used are refused, with the column of the error or the option for them."""

from __future__ import annotations

from pathlib import Path

import pytest
from fixture_types import Cli, Refusal
from PIL import Image
from refusals import refusal


def test_unknown_schedule(refuse_generate: Refusal) -> None:
    assert refuse_generate("--label", 3, "--schedule", "mixture-5") == (
        "no schedule 'mixture-5' in this bundle; "
        "give one of the names one-step, ancestral-2, zigzag-3, mixture-4, invert-1, invert-2, "
        "or levels in quotes, such as '80>2.4>0.002'"
    )


@pytest.mark.parametrize("text", ["", "  "])
def test_empty_schedule(refuse_generate: Refusal, text: str) -> None:
    message = refuse_generate("--label", 3, "--schedule", text)
    assert message == "the schedule is empty; give a name or levels, such as '80>2.4>0.002'"


@pytest.mark.parametrize(
    ("text", "problem", "column"),
    [
        ("80>100>0.002", "level 100 is outside [0.002, 80]", 4),
        ("80>0.001", "level 0.001 is outside [0.002, 80]", 4),
        ("81>0.002", "level 81 is outside [0.002, 80]", 1),
        ("80>-1", "level -1 is outside [0.002, 80]", 4),
        ("80>nan", "level nan is outside [0.002, 80]", 4),
        ("80>inf>0.002", "level inf is outside [0.002, 80]", 4),
        ("80>2.4>2.4>0.002", "a move from 2.4 to 2.4 does nothing", 8),
        ("80>80.0", "a move from 80 to 80 does nothing", 4),
        ("80>two", "'two' is not a noise level", 4),
        ("80>>0.002", "a noise level is missing", 4),
        ("80>0.002 +nan 0.1>0.002", "level nan is outside [0.002, 80]", 11),
        (
            "80>0.002 0.1>0.002",
            "the state is at level 0.002 here, so the next move must start at this level",
            10,
        ),
        ("80>0.002 +0.1", "added noise must be followed by a move, such as '+0.1 0.1>0.002'", 14),
    ],
)
def test_invalid_schedule_shows_the_column(
    refuse_generate: Refusal, text: str, problem: str, column: int
) -> None:
    message = refuse_generate("--label", 3, "--schedule", text, lines=3)
    assert message == f"schedule: {problem} (column {column})\n  {text}\n  {' ' * (column - 1)}^"


def test_generate_refuses_a_schedule_that_starts_from_an_image(refuse_generate: Refusal) -> None:
    message = refuse_generate("--label", 3, "--schedule", "+0.07 0.07>1>80")
    assert message == (
        "schedule '+0.07 0.07>1>80' starts from an image, so it cannot generate; "
        "it leads to noise, so give it as --inversion"
    )


def test_options_for_the_other_direction_are_named(cli: Cli, digits_bundle: Path, tmp_path: Path) -> None:
    Image.new("L", (8, 8)).save(tmp_path / "in.png")
    image, output = tmp_path / "in.png", ("--label", 3, "-o", tmp_path / "out.npz")
    to_noise = refusal(cli("invert", digits_bundle, image, *output, "--inversion", "one-step"))
    assert to_noise.endswith("; a schedule to an image is given as --schedule")
    for command in ("restore", "reconstruct", "variations", "trace", "upscale"):
        to_image = refusal(cli(command, digits_bundle, image, *output, "--schedule", "invert-2"))
        assert to_image.endswith("; it leads to noise, so give it as --inversion"), command
    to_image = refusal(cli("bench", digits_bundle, "--schedule", "invert-2"))
    assert to_image.endswith("does not lead to an image; it leads to noise, so give it as --inversion")


def test_commands_of_one_direction_name_their_option(cli: Cli, digits_bundle: Path, tmp_path: Path) -> None:
    output = ("--label", 3, "-o", tmp_path / "out.npz")
    result = cli("invert", digits_bundle, tmp_path / "in.png", *output, "--schedule", "invert-2")
    assert result.exit_code == 2
    assert result.stderr.endswith("invert ends at noise; give the schedule to noise with --inversion\n")
    result = cli("generate", digits_bundle, *output, "--inversion", "invert-2")
    assert result.exit_code == 2 and result.stderr.endswith("with --schedule\n")


def test_invert_refuses_a_schedule_that_does_not_end_in_noise(
    cli: Cli, digits_bundle: Path, tmp_path: Path
) -> None:
    Image.new("L", (8, 8)).save(tmp_path / "in.png")
    options = ("--label", 3, "--inversion", "+0.07 0.07>15", "-o", tmp_path / "z.npz")
    result = cli("invert", digits_bundle, tmp_path / "in.png", *options)
    assert refusal(result).startswith(
        "schedule '+0.07 0.07>15' does not invert: an inversion adds noise to an image and ends at 80"
    )
    assert not (tmp_path / "z.npz").exists()
