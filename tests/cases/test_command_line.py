"""Errors on the command line: as JSON, interrupts, bugs, misspelt commands, and unusual paths."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from fixture_types import Cli, Completed
from refusals import refusal

from bcm_edge.cli import main
from bcm_edge.commands.failures import explained
from bcm_edge.commands.paths import OutputPath, UserPath
from bcm_edge.commands.run import Run
from bcm_edge.errors import ShardError

COMMANDS = main.list_commands(click.Context(main))


Process = Callable[..., "Completed"]


def parameters(name: str) -> list[click.Parameter]:
    """The options and arguments of a command."""
    command = main.get_command(click.Context(main), name)
    assert command
    return command.params


@pytest.fixture
def patched(digits_bundle: Path, tmp_path: Path) -> Process:
    """Run `generate` in a process whose function that saves the images has another body, given as code."""

    def run(body: str, *arguments: str) -> Completed:
        code = (
            "import os, signal, sys; from bcm_edge.commands import images; from bcm_edge.cli import main\n"
            f"def save_images(*_, **__): {body}\n"
            "images.save_images = save_images; sys.argv[0] = 'bcm-edge'; main()"
        )
        options = ["--backend", "null", "--label", "3", "-o", "out.png", *arguments]
        return subprocess.run(
            [sys.executable, "-c", code, "generate", str(digits_bundle), *options],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    return run


# Errors as JSON


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        (("-o", "out.png", "--label", "99"), "LabelError", "label 99 is out of range"),
        (("-o", "out.mp4"), "OutputError", "out.mp4: cannot write .mp4 files"),
        (("-o", "-"), "OutputError", "-: results cannot be written to standard output"),
        (("-o", "out.png", "--schedule", "80>x"), "ScheduleError", "schedule: "),
        (("-o", "out.png", "--lable", "3"), "NoSuchOption", "No such option"),
        (
            ("-o", "out.png", "-n", "many"),
            "BadParameter",
            "Invalid value for '-n' / '--number': 'many' is not a valid integer",
        ),
        ((), "MissingParameter", "Missing option '-o' / '--output'"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_error_with_json_is_one_object_on_stdout(
    generate: Cli, arguments: tuple[str, ...], kind: str, message: str
) -> None:
    result = generate(*arguments, "--json")
    assert result.exit_code == 2
    (key, error), *others = json.loads(result.stdout).items()
    assert (key, others) == ("error", [])
    assert (error["kind"], error["exit_code"]) == (kind, 2)
    assert error["message"].startswith(message)
    assert error["message"].splitlines()[0] in result.stderr


def test_unknown_command_with_json(cli: Cli) -> None:
    result = cli("generat", "digits.bundle", "--json")
    assert (
        json.loads(result.stdout)["error"]["message"] == "No such command 'generat'; did you mean generate?"
    )
    assert result.exit_code == 2


def test_error_without_json_prints_nothing_on_stdout(generate: Cli) -> None:
    assert refusal(generate("-o", "out.mp4")).startswith("out.mp4: cannot write .mp4 files")
    assert generate("-o", "out.png", "--lable").stdout == ""
    # After --, --json is an argument, a second bundle.
    assert generate("-o", "out.png", "--", "--json").stdout == ""


def test_failure_after_the_result_prints_no_second_object(
    generate: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    printed = Run.report

    def report(*arguments: Any) -> None:
        printed(*arguments)
        raise ShardError("one shard failed")

    monkeypatch.setattr(Run, "report", report)
    result = generate("-o", "out.png", "--json")
    assert (result.exit_code, json.loads(result.stdout)["output"]) == (1, "out.png")
    assert result.stderr.endswith("error: one shard failed\n")


# Unexpected errors


@pytest.mark.parametrize("as_json", [False, True])
def test_unexpected_exception_is_reported_as_a_bug(patched: Process, tmp_path: Path, as_json: bool) -> None:
    completed = patched("return {}['weights']", *(["--json"] if as_json else []))
    assert completed.returncode == 70
    message = "this is a bug in bcm-edge: KeyError: 'weights'; "
    assert f"error: {message}" in completed.stderr and "--log-file" in completed.stderr
    assert "Traceback" not in completed.stderr
    if as_json:
        assert json.loads(completed.stdout)["error"]["kind"] == "KeyError"
        assert json.loads(completed.stdout)["error"]["message"].startswith(message)
    else:
        assert completed.stdout == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("body", "exit_code", "line"),
    [
        ("os.kill(os.getpid(), signal.SIGINT)", 130, "interrupted"),
        (
            "raise MemoryError",
            2,
            "error: not enough memory; process fewer images at a time, or use a smaller --batch",
        ),
        ("open('/nowhere/file')", 2, "error: /nowhere/file: No such file or directory"),
    ],
    ids=["Ctrl-C", "memory", "file"],
)
def test_interrupt_and_system_errors_are_one_line(
    patched: Process, body: str, exit_code: int, line: str
) -> None:
    completed = patched(body)
    assert (completed.returncode, completed.stdout) == (exit_code, "")
    assert completed.stderr == f"{line}\n"


@pytest.mark.parametrize(
    "reason", ["[enforce fail at alloc_cpu.cpp:117] can't allocate memory: 8 bytes", "std::bad_alloc"]
)
def test_out_of_memory_in_a_library_is_not_a_bug(reason: str) -> None:
    message, exit_code = explained(RuntimeError(f"{reason}\nframe #0"))
    assert (
        message == f"not enough memory ({reason}); process fewer images at a time, or use a smaller --batch"
    )
    assert exit_code == 2


def test_control_characters_of_a_name_are_escaped(cli: Cli) -> None:
    assert refusal(cli("inspect", "a\nb\x1b[31m")).startswith("a\\nb\\x1b[31m: not a bundle (no such folder)")


def test_interrupt_with_json(patched: Process) -> None:
    completed = patched("os.kill(os.getpid(), signal.SIGINT)", "--json")
    assert json.loads(completed.stdout)["error"] == {
        "kind": "KeyboardInterrupt",
        "message": "interrupted",
        "exit_code": 130,
    }
    assert completed.returncode == 128 + signal.SIGINT


# Misspelt commands


@pytest.mark.parametrize(
    ("word", "suggestion"),
    [("generat", "generate"), ("inveret", "invert"), ("purfy", "purify"), ("trian", "train")],
)
def test_misspelt_command(cli: Cli, word: str, suggestion: str) -> None:
    result = cli(word, "digits.bundle")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.endswith(f"Error: No such command {word!r}; did you mean {suggestion}?\n")


def test_unknown_command_without_a_suggestion(cli: Cli) -> None:
    assert cli("frobnicate").stderr.endswith("Error: No such command 'frobnicate'; main --help lists them.\n")


def test_no_command_shows_the_help(cli: Cli) -> None:
    result = cli()
    assert result.exit_code == 2
    assert "  generate     Generate images from noise, or from latents." in result.output


# Paths


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
