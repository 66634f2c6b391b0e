"""Paths on the command line: the home folder, standard output, folders, and names that look like options."""

from __future__ import annotations

import os
from pathlib import Path

import click
import numpy as np
import pytest
from fixture_types import Cli
from refusals import refusal

from bcm_edge.cli import main
from bcm_edge.commands.paths import OutputPath, UserPath

COMMANDS = main.list_commands(click.Context(main))


def parameters(name: str) -> list[click.Parameter]:
    """The options and arguments of a command."""
    command = main.get_command(click.Context(main), name)
    assert command
    return command.params


@pytest.mark.parametrize("name", COMMANDS)
def test_every_path_expands_the_home_folder(name: str) -> None:
    for parameter in parameters(name):
        assert not isinstance(parameter.type, click.Path) or isinstance(parameter.type, UserPath), (
            parameter.name
        )
        if parameter.name in ("data", "dataset", "test"):
            assert isinstance(parameter.type, UserPath)
        if parameter.name in ("output", "picture"):
            assert isinstance(parameter.type, OutputPath)


def test_home_folder_after_an_equals_sign(
    generate: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    result = generate("--output=~/sub/out.png")
    assert (result.exit_code, result.stdout) == (0, f"{tmp_path}/home/sub/out.png\n")
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


def test_home_folder_of_an_unknown_user(generate: Cli, tmp_path: Path) -> None:
    message = refusal(generate("--output=~nobody-of-that-name/out.png"))
    assert message.startswith(
        "~nobody-of-that-name/out.png: unknown user 'nobody-of-that-name'; "
        "for a file of that name write ./~nobody"
    )
    (tmp_path / "~backup.npz").write_bytes(b"PK")  # what a shell returns for *.npz
    assert refusal(generate("--latents", "~backup.npz", "-o", "out.png")).startswith("~backup.npz: ")
    assert generate("-o", "./~x.png").exit_code == 0 and (tmp_path / "~x.png").is_file()


@pytest.mark.parametrize(
    "name", [name for name in COMMANDS if any(p.name == "output" for p in parameters(name))]
)
@pytest.mark.parametrize("output", ["-", "/dev/stdout", "/dev/fd/1"])
def test_results_are_not_written_to_standard_output(cli: Cli, name: str, output: str) -> None:
    expected = (
        f"{output}: results cannot be written to standard output; give a file name (./- for a file named -)"
    )
    assert refusal(cli(name, "-o", output)) == expected


def test_file_whose_name_starts_with_a_hyphen(generate: Cli, tmp_path: Path) -> None:
    assert generate("-o", "./-.png").exit_code == 0
    assert generate("-o", "-n.png").exit_code == 0
    assert {path.name for path in tmp_path.iterdir()} == {"-.png", "-n.png"}


def test_empty_path(generate: Cli) -> None:
    assert (
        refusal(generate("-o", ""))
        == "the path for '-o' / '--output' is empty; give the name of a file or folder"
    )


def test_folder_name_where_a_file_is_written(generate: Cli, cli: Cli, tmp_path: Path) -> None:
    message = "out.png/ ends in / like the name of a folder, but the output is a file; remove the /"
    assert refusal(generate("-o", "out.png/")) == message
    assert refusal(cli("train", "--data", "digits", "-o", "weights/")).startswith("weights/ ends in / like ")
    assert generate("-o", "pictures/").exit_code == 0
    assert (tmp_path / "pictures" / "images.csv").is_file()


def test_output_may_replace_its_own_input(
    generate: Cli, cli: Cli, digits_bundle: Path, tmp_path: Path
) -> None:
    assert generate("-n", 2, "-o", "x.npz").exit_code == 0
    assert (
        refusal(cli("invert", digits_bundle, "x.npz", "-o", "x.npz"))
        == "x.npz exists already; --force replaces it"
    )
    assert cli("invert", digits_bundle, "x.npz", "-o", "x.npz", "--force").exit_code == 0
    with np.load(tmp_path / "x.npz") as arrays:
        assert arrays["latents"].shape == (2, 1, 8, 8)


def test_output_does_not_replace_the_bundle_or_the_checkpoint(
    generate: Cli, bundle_copy: Path, cli: Cli, tmp_path: Path
) -> None:
    assert generate("-n", 2, "-o", "x.npz").exit_code == 0
    golden = bundle_copy / "golden.npz"
    expected = f"{golden} is a file of the bundle; choose another output"
    assert refusal(cli("invert", bundle_copy, "x.npz", "-o", golden, "--force")) == expected
    pytest.importorskip("torch", reason="export needs torch, which is not installed")
    (tmp_path / "my.safetensors").write_bytes(b"weights")
    expected = "my.safetensors is the checkpoint, which the bundle would replace; choose another output"
    assert refusal(cli("export", "my.safetensors", "-o", "my.safetensors", "--force")) == expected
    assert (tmp_path / "my.safetensors").read_bytes() == b"weights"


def test_file_that_looks_like_an_option(cli: Cli, generate: Cli, digits_bundle: Path, tmp_path: Path) -> None:
    assert generate("-o", "-5.npz").exit_code == 0
    result = cli("invert", digits_bundle, "-5.npz", "-o", "z.npz")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.endswith("For the file of that name write ./-5.npz.\n")
    assert cli("invert", digits_bundle, "./-5.npz", "-o", "z.npz").exit_code == 0


def test_path_that_is_not_utf_8_where_a_library_needs_it(cli: Cli, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    folder = tmp_path / os.fsdecode(b"\xff")
    folder.mkdir()
    assert "the path is not valid UTF-8; for this command, rename the file or its folder" in refusal(
        cli("export", "-o", folder / "x.bundle")
    )
    assert list(folder.iterdir()) == []
