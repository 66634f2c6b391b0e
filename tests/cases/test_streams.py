"""Standard streams that are closed, full, cut off, or of a terminal that is not UTF-8: the real command in a process of its own."""

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

ROOT = Path(__file__).resolve().parents[2]
FULL = "standard output: cannot be written (No space left on device)"

Shell = Callable[..., "subprocess.CompletedProcess[bytes]"]


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    """Run `bcm-edge ARGUMENTS` with redirections in a shell, in the test's folder."""

    def run(redirections: str, *arguments: object, **environment: str) -> subprocess.CompletedProcess[bytes]:
        command = [
            "sh",
            "-c",
            f'"$@" {redirections}',
            "sh",
            sys.executable,
            str(ROOT / "cli.py"),
            *map(str, arguments),
        ]
        environment = {**os.environ, **environment}
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, timeout=300, check=False
        )

    return run


def assert_whole(file: Path) -> None:
    """An npz of one digit, with nothing else in it: no message that a library wrote to a descriptor it took for a stream."""
    with np.load(file, allow_pickle=False) as arrays:
        assert arrays["images"].shape == (1, 1, 8, 8)
    assert file.read_bytes()[:2] == b"PK"


@pytest.mark.parametrize(
    ("redirection", "reason"), [(">&-", "it is closed"), (">/dev/full", "No space left on device")]
)
def test_result_that_cannot_be_printed(
    shell: Shell, digits_bundle: Path, tmp_path: Path, redirection: str, reason: str
) -> None:
    ended = shell(redirection, "generate", digits_bundle, "--label", 3, "-o", "out.npz")
    assert ended.returncode == 2
    assert ended.stderr.decode().splitlines()[-1] == f"error: standard output: cannot be written ({reason})"
    assert b"Traceback" not in ended.stderr and b"Exception ignored" not in ended.stderr
    assert_whole(tmp_path / "out.npz")


@pytest.mark.parametrize(
    "arguments", [("--help",), ("generate", "--help"), ("--version",), ("inspect", "BUNDLE", "--json")]
)
def test_other_output_on_a_full_disk(shell: Shell, digits_bundle: Path, arguments: tuple[str, ...]) -> None:
    given = [digits_bundle if word == "BUNDLE" else word for word in arguments]
    ended = shell(">/dev/full", *given)
    assert (ended.returncode, ended.stderr.decode()) == (2, f"error: {FULL}\n")


@pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full", "<&-", "<&- 2>&-"])
def test_messages_that_cannot_be_printed_do_not_stop_a_command(
    shell: Shell, digits_bundle: Path, tmp_path: Path, redirection: str
) -> None:
    ended = shell(redirection, "generate", digits_bundle, "--label", 3, "-o", "out.npz")
    assert (ended.returncode, ended.stdout) == (0, b"out.npz\n")
    assert_whole(tmp_path / "out.npz")


def test_all_streams_closed(shell: Shell, digits_bundle: Path, tmp_path: Path) -> None:
    ended = shell("<&- >&- 2>&-", "generate", digits_bundle, "--label", 3, "-o", "out.npz")
    assert (ended.returncode, ended.stdout, ended.stderr) == (2, b"", b"")
    assert_whole(tmp_path / "out.npz")


def test_error_with_stderr_closed_keeps_its_exit_code(shell: Shell) -> None:
    ended = shell("2>&-", "inspect", "nowhere", "--json")
    assert ended.returncode == 2
    assert json.loads(ended.stdout)["error"]["kind"] == "BundleError"


def test_reader_that_has_gone_is_no_error(digits_bundle: Path, tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [
        sys.executable,
        str(ROOT / "cli.py"),
        "generate",
        str(digits_bundle),
        "--label",
        "3",
        "-o",
        str(tmp_path / "out.npz"),
    ]
    try:
        ended = subprocess.run(
            command, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=300, check=False
        )
    finally:
        os.close(writing)
    assert ended.returncode == 141  # as `yes | head -1` gives yes
    assert ended.stderr.count("\n") == 1 and ended.stderr.startswith("1 image in ")
    assert_whole(tmp_path / "out.npz")


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
def test_characters_that_the_terminal_lacks_are_spelled(
    shell: Shell, digits_bundle: Path, environment: dict[str, str], expected: bytes
) -> None:
    ended = shell("", "inspect", digits_bundle, **environment)
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert ended.stdout.startswith(expected)


def test_error_with_characters_that_the_terminal_lacks(shell: Shell) -> None:
    ended = shell("", "inspect", "chiffre-é→😀.bundle", PYTHONIOENCODING="ascii")
    assert ended.returncode == 2
    assert ended.stderr.startswith(b"error: chiffre-e->?.bundle: not a bundle (no such folder)")


@pytest.mark.parametrize("environment", [{}, {"PYTHONIOENCODING": "ascii"}], ids=["utf-8", "ascii"])
def test_name_that_is_no_text_is_printed_as_it_is(
    shell: Shell, digits_bundle: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    name = os.fsdecode(b"out-\xff.npz")
    ended = shell("", "generate", digits_bundle, "--backend", "null", "--label", 3, "-o", name, **environment)
    assert (ended.returncode, ended.stdout) == (0, b"out-\xff.npz\n")
    assert_whole(tmp_path / name)


@pytest.mark.parametrize(
    "terminal", [{"TERM": "dumb", "COLUMNS": "20"}, {"TERM": "xterm", "PYTHONIOENCODING": "ascii"}], ids=str
)
def test_progress_bar_on_a_poor_terminal(
    digits_bundle: Path, tmp_path: Path, terminal: dict[str, str]
) -> None:
    main, side = pty.openpty()
    command = [
        sys.executable,
        str(ROOT / "cli.py"),
        "generate",
        str(digits_bundle),
        "-n",
        "40",
        "--label",
        "3",
    ]
    command += ["--schedule", "mixture-4", "-o", str(tmp_path / "out.npz")]
    try:
        ended = subprocess.run(
            command,
            stderr=side,
            stdout=subprocess.PIPE,
            env={**os.environ, **terminal},
            timeout=300,
            check=False,
        )
        seen = os.read(main, 1 << 16)
    finally:
        os.close(main)
        os.close(side)
    assert (ended.returncode, ended.stdout) == (0, f"{tmp_path}/out.npz\n".encode())
    assert b"40 images in " in seen and b"Traceback" not in seen
