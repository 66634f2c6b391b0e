"""Standard streams that are closed or full, or whose reader has ended, and terminals without UTF-8."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fixture_types import ROOT

FULL = (
    "standard output: cannot be written (No space left on device); "
    "redirect it to a file on a disk with free space"
)

Completed = subprocess.CompletedProcess[bytes]
Shell = Callable[..., Completed]


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    """Run `bcm-edge ARGUMENTS` with redirections in a shell, in the test's folder."""

    def run(redirections: str, *arguments: object, **environment: str) -> Completed:
        shell = ["sh", "-c", f'"$@" {redirections}', "sh"]
        command = [*shell, sys.executable, str(ROOT / "cli.py"), *map(str, arguments)]
        environment = {**os.environ, **environment}
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, timeout=300, check=False
        )

    return run


def assert_is_intact(file: Path) -> None:
    """Check that an npz file has one digit and that no library wrote a message into it."""
    with np.load(file, allow_pickle=False) as arrays:
        assert arrays["images"].shape == (1, 1, 8, 8)
    assert file.read_bytes()[:2] == b"PK"


@pytest.mark.parametrize(
    ("redirection", "reason"), [(">&-", "it is closed"), (">/dev/full", "No space left on device")]
)
def test_stdout_that_is_closed_or_full(
    shell: Shell, digits_bundle: Path, tmp_path: Path, redirection: str, reason: str
) -> None:
    completed = shell(redirection, "generate", digits_bundle, "--label", 3, "-o", "out.npz")
    assert completed.returncode == 2
    last_line = completed.stderr.decode().splitlines()[-1]
    assert last_line.startswith(f"error: standard output: cannot be written ({reason}); ")
    assert b"Traceback" not in completed.stderr and b"Exception ignored" not in completed.stderr
    assert_is_intact(tmp_path / "out.npz")


@pytest.mark.parametrize(
    "arguments", [("--help",), ("generate", "--help"), ("--version",), ("inspect", "BUNDLE", "--json")]
)
def test_help_and_reports_on_a_full_disk(
    shell: Shell, digits_bundle: Path, arguments: tuple[str, ...]
) -> None:
    words = [digits_bundle if word == "BUNDLE" else word for word in arguments]
    completed = shell(">/dev/full", *words)
    assert (completed.returncode, completed.stderr.decode()) == (2, f"error: {FULL}\n")


@pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full", "<&-", "<&- 2>&-"])
def test_closed_or_full_stderr_does_not_stop_a_command(
    shell: Shell, digits_bundle: Path, tmp_path: Path, redirection: str
) -> None:
    completed = shell(redirection, "generate", digits_bundle, "--label", 3, "-o", "out.npz")
    assert (completed.returncode, completed.stdout) == (0, b"out.npz\n")
    assert_is_intact(tmp_path / "out.npz")


def test_all_streams_closed(shell: Shell, digits_bundle: Path, tmp_path: Path) -> None:
    completed = shell("<&- >&- 2>&-", "generate", digits_bundle, "--label", 3, "-o", "out.npz")
    assert (completed.returncode, completed.stdout, completed.stderr) == (2, b"", b"")
    assert_is_intact(tmp_path / "out.npz")


def test_exit_code_of_an_error_with_stderr_closed(shell: Shell) -> None:
    completed = shell("2>&-", "inspect", "nowhere", "--json")
    assert completed.returncode == 2
    assert json.loads(completed.stdout)["error"]["kind"] == "BundleError"


def test_pipe_whose_reader_has_ended_is_not_an_error(digits_bundle: Path, tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    options = ["--label", "3", "-o", str(tmp_path / "out.npz")]
    command = [sys.executable, str(ROOT / "cli.py"), "generate", str(digits_bundle), *options]
    try:
        completed = subprocess.run(
            command, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=300, check=False
        )
    finally:
        os.close(writing)
    assert completed.returncode == 141  # the exit code of yes in `yes | head -1`
    assert completed.stderr.count("\n") == 1 and completed.stderr.startswith("1 image in ")
    assert_is_intact(tmp_path / "out.npz")


# Encodings


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"PYTHONIOENCODING": "ascii"}, b"digits: 1x8x8, 10 classes"),
        ({"PYTHONIOENCODING": "latin-1"}, b"digits: 1\xd78\xd78, 10 classes"),
        ({"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, b"digits: 1x8x8, 10 classes"),
        ({"PYTHONIOENCODING": "utf-8"}, "digits: 1×8×8, 10 classes".encode()),
    ],
    ids=["ascii", "latin-1", "C", "utf-8"],
)
def test_characters_that_the_terminal_lacks_are_replaced(
    shell: Shell, digits_bundle: Path, environment: dict[str, str], expected: bytes
) -> None:
    completed = shell("", "inspect", digits_bundle, **environment)
    assert (completed.returncode, completed.stderr) == (0, b"")
    assert completed.stdout.startswith(expected)


def test_error_with_characters_that_the_terminal_lacks(shell: Shell) -> None:
    completed = shell("", "inspect", "chiffre-é→😀.bundle", PYTHONIOENCODING="ascii")
    assert completed.returncode == 2
    assert completed.stderr.startswith(b"error: chiffre-e->?.bundle: not a bundle (no such folder)")


@pytest.mark.parametrize("environment", [{}, {"PYTHONIOENCODING": "ascii"}], ids=["utf-8", "ascii"])
def test_file_name_that_is_not_text_is_printed_unchanged(
    shell: Shell, digits_bundle: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    name = os.fsdecode(b"out-\xff.npz")
    completed = shell(
        "", "generate", digits_bundle, "--backend", "null", "--label", 3, "-o", name, **environment
    )
    assert (completed.returncode, completed.stdout) == (0, b"out-\xff.npz\n")
    assert_is_intact(tmp_path / name)


@pytest.mark.parametrize(
    "terminal", [{"TERM": "dumb", "COLUMNS": "20"}, {"TERM": "xterm", "PYTHONIOENCODING": "ascii"}], ids=str
)
def test_progress_bar_on_a_limited_terminal(
    digits_bundle: Path, tmp_path: Path, terminal: dict[str, str]
) -> None:
    main, side = pty.openpty()
    options = ["-n", "40", "--label", "3", "--schedule", "mixture-4", "-o", str(tmp_path / "out.npz")]
    command = [sys.executable, str(ROOT / "cli.py"), "generate", str(digits_bundle), *options]
    try:
        completed = subprocess.run(
            command,
            stderr=side,
            stdout=subprocess.PIPE,
            env={**os.environ, **terminal},
            timeout=300,
            check=False,
        )
        output = os.read(main, 1 << 16)
    finally:
        os.close(main)
        os.close(side)
    assert (completed.returncode, completed.stdout) == (0, f"{tmp_path}/out.npz\n".encode())
    assert b"40 images in " in output and b"Traceback" not in output
