"""Help texts, the version, exit codes, and the text on stdout and stderr."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest
from fixture_types import Cli, Process
from results import only_json

import bcm_edge
from bcm_edge.cli import main

GROUPS = {
    "Make a bundle": ("export", "calibrate", "build", "pack", "unpack", "upgrade", "card"),
    "Make images": (
        *("generate", "invert", "reconstruct", "interpolate", "variations", "trace"),
        *("map", "demo"),
    ),
    "Edit images": ("inpaint", "colorize", "upscale", "restore", "purify", "restyle"),
    "Check": ("inspect", "verify", "bench", "evaluate", "doctor"),
    "Serve": ("ui", "triton"),
    "Train": ("train",),
}
COMMANDS = tuple(name for group in GROUPS.values() for name in group)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_ends_with_an_example_that_parses(cli: Cli, name: str):
    result = cli(name, "--help")
    assert result.exit_code == 0
    example = re.search(rf"Example:  bcm-edge {name} (.+)", result.stdout, re.DOTALL)
    assert example
    command = main.get_command(click.Context(main), name)
    assert command
    # This raises click.UsageError for an option that does not exist or a value that is not allowed.
    command.make_context(name, shlex.split(example[1]))


def test_help_lists_every_command_with_one_line_in_one_group(cli: Cli):
    result = cli("--help")
    listed: dict[str, tuple[str, ...]] = {}
    for heading, lines in re.findall(r"^([\w ]+):\n((?:  \w+  +\S.*[.]\n)+)", result.stdout, re.MULTILINE):
        listed[heading] = tuple(line.split()[0] for line in lines.splitlines())
    assert listed == GROUPS
    assert len(set(COMMANDS)) == len(COMMANDS)
    assert "  1    a check failed\n    2    wrong usage" in result.stdout


def test_version_is_that_of_the_package(cli: Cli):
    assert cli("--version").stdout == f"bcm-edge, version {bcm_edge.__version__}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ("no-such-command",),
        ("generate",),
        ("generate", "x", "-n", "0", "-o", "y"),
        ("invert", "x", "-o", "y"),
        ("export", "--opset", "17"),
    ],
    ids=lambda arguments: " ".join(arguments),
)
def test_usage_error_exits_with_2(cli: Cli, arguments: tuple[str, ...]):
    result = cli(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "Usage: " in result.stderr


def test_unusable_input_exits_with_2_and_one_line(process: Process, tmp_path: Path):
    completed = process("generate", "nowhere.bundle", "-o", "a.png", cwd=tmp_path)
    assert (completed.returncode, completed.stdout) == (2, "")
    reason = "nowhere.bundle: not a bundle (no such folder)"
    advice = "give a bundle, or a model in the package: emoji, digits, mnist; bcm-edge export makes a bundle"
    assert completed.stderr == f"error: {reason}; {advice}\n"


def test_generate_prints_the_output_on_stdout_and_progress_on_stderr(
    digits_bundle: Path, process: Process, tmp_path: Path
):
    completed = process("generate", digits_bundle, "-n", 2, "--label", 3, "-o", "out.npz", cwd=tmp_path)
    assert (completed.returncode, completed.stdout) == (0, "out.npz\n")
    call = r"2 images in \d+\.\d\d s \(80>0\.002, 1 NFE each\)"
    assert re.fullmatch(call + r" in fp32 on onnxruntime: CPU, \d+ threads?\n", completed.stderr)


@pytest.mark.parametrize("command", ["generate", "invert", "reconstruct"])
def test_json_is_the_only_text_on_stdout(
    digits_bundle: Path, images_file: Path, cli: Cli, tmp_path: Path, command: str
):
    inputs = ("-n", 2, "--label", 3) if command == "generate" else (images_file,)
    result = cli(command, digits_bundle, *inputs, "-o", tmp_path / "out.npz", "--json")
    assert result.exit_code == 0
    assert result.stdout.count("\n") == 1
    report = only_json(result.stdout)
    assert report["output"] == str(tmp_path / "out.npz")
    assert report["images"] == (2 if command == "generate" else 6)
    assert report["nfe"] == {"generate": 1, "invert": 2, "reconstruct": 3}[command]
