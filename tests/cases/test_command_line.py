"""Errors on the command line: as JSON, interrupts, bugs, misspelt commands, and unusual paths."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fixture_types import Cli, Completed
from refusals import refusal

from bcm_edge.commands.failures import explained
from bcm_edge.commands.run import Run
from bcm_edge.errors import ShardError

Process = Callable[..., "Completed"]


@pytest.fixture
def patched(digits_bundle: Path, tmp_path: Path) -> Process:
    """Run `generate` in a process whose function that saves the images has another body, given as code."""

    def run(body: str, *arguments: str) -> Completed:
        code = (
            "import os, signal, sys; from bcm_edge.commands import run; from bcm_edge.cli import main\n"
            f"def save_images(*_, **__): {body}\n"
            "run.save_images = save_images; sys.argv[0] = 'bcm-edge'; main()"
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
        (
            ("-o", "out.png", "--label", "99"),
            "UsageError",
            "--label/--class is given twice; give a list: --label 3,99",
        ),
        (("-o", "out.mp4"), "OutputError", "out.mp4: cannot write .mp4 files"),
        (("-o", "-"), "OutputError", "-: results cannot be written to standard output"),
        (("-o", "out.png", "--schedule", "80>x"), "ScheduleError", "schedule: "),
        (("-o", "out.png", "--lable", "3"), "NoSuchOption", "No such option"),
        (
            ("-o", "out.png", "-n", "many"),
            "BadParameter",
            "Invalid value for '-n' / '--number' / '--num-images': 'many' is not a valid integer",
        ),
        (
            (),
            "MissingParameter",
            "Missing option '-o' / '--output'. Example:  bcm-edge generate digits -n 16 --label 3",
        ),
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
    [
        ("generat", "generate"),
        ("inveret", "invert"),
        ("purfy", "purify"),
        ("trian", "train"),
        ("gen", "generate"),
        ("vary", "variations"),
        ("version", "--version"),
    ],
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
