"""Texts in a terminal of 80 columns: tables and help are readable, verdicts have colours."""

from __future__ import annotations

import io
import os
import pty
import re
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from fixture_types import ROOT, Cli, Process

from bcm_edge.cli import main
from bcm_edge.commands.bench_report import report
from bcm_edge.commands.console import parity_table
from bcm_edge.commands.tables import table
from bcm_edge.commands.terminal import shown
from bcm_edge.runtime.checks.benchmark import Result
from bcm_edge.runtime.checks.parity import MoveError

COLOUR = re.compile(r"\x1b\[(\d+)m(.*?)\x1b\[0m")
GREEN, RED, YELLOW = "32", "31", "33"


class Terminal(io.StringIO):
    """A stream that is a terminal. Its width is $COLUMNS."""

    def isatty(self) -> bool:
        """Return True."""
        return True


def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make standard output and errors a terminal of 80 columns, without colours."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr(sys, "stdout", Terminal())
    monkeypatch.setattr(sys, "stderr", Terminal())


def on_pty(*arguments: object, cwd: Path, columns: int = 80, **environment: str) -> str:
    """Run a command in a terminal of this width, and return all that it shows there."""
    leader, follower = pty.openpty()
    termios.tcsetwinsize(follower, (24, columns))
    unset = {
        name: value
        for name, value in os.environ.items()
        if name not in ("COLUMNS", "NO_COLOR", "FORCE_COLOR")
    }
    command = [sys.executable, str(ROOT / "cli.py"), *map(str, arguments)]
    with subprocess.Popen(
        command, cwd=cwd, env={**unset, "TERM": "xterm", **environment},
        stdin=subprocess.DEVNULL, stdout=follower, stderr=follower,
    ) as process:  # fmt: skip
        os.close(follower)
        text = b""
        while part := _read(leader):
            text += part
        process.wait(timeout=300)
    os.close(leader)
    return text.decode().replace("\r\n", "\n")


def _read(leader: int) -> bytes:
    try:
        return os.read(leader, 65536)
    except OSError:  # on Linux, the end of the output
        return b""


def too_wide(text: str, columns: int = 80) -> list[str]:
    """Return the lines that are wider, without those that contain a command to copy."""
    return [
        line
        for line in COLOUR.sub(r"\2", text).split("\n")
        if len(line) > columns and not re.search(r"bcm-edge |pip install", line)
    ]


# Help


@pytest.mark.parametrize("name", [None, *main.homes])
def test_help_fits_80_columns(cli: Cli, monkeypatch: pytest.MonkeyPatch, name: str | None):
    monkeypatch.setenv("COLUMNS", "80")
    text = cli(*([name] if name else []), "--help").stdout
    assert too_wide(text) == []


# Tables


def test_table_in_a_pipe_has_its_natural_width():
    text = table(("name", "why"), [("x" * 50, "y" * 50)])
    assert text == f"name{' ' * 46}  {' ' * 47}why\n{'─' * 50}  {'─' * 50}\n{'x' * 50}  {'y' * 50}"


def test_columns_of_texts_are_aligned_to_the_left():
    text = table(("name", "n", "why"), [("a", 1, "x"), ("b", 22, "yyyy")], ("why",))
    assert text == "name   n  why\n────  ──  ────\na      1  x\nb     22  yyyy"


def test_words_of_the_widest_column_continue_below(monkeypatch: pytest.MonkeyPatch):
    narrow(monkeypatch)
    text = table(("name", "n", "why"), [("a", 1, "words " * 20), ("b", 22, "short")])
    lines = text.split("\n")
    assert max(map(len, lines)) <= 80
    assert lines[2].split() == ["a", "1", *["words"] * 11]
    assert lines[3].split() == ["words"] * 9
    assert lines[3].startswith(" " * 10 + "words")
    assert lines[4] == "b     22  short"


def test_long_name_loses_its_middle(monkeypatch: pytest.MonkeyPatch):
    narrow(monkeypatch)
    name = "a-photo-with-a-very-long-name-" * 3 + "of-today.png"
    row = table(("image", "MSE"), [(name, "0.00123")]).split("\n")[2]
    assert len(row) == 80
    assert row.startswith("a-photo-with-a-very-long-name-") and row.endswith("-of-today.png  0.00123")
    assert row.count("…") == 1


def measured(backend: str, p50_ms: float) -> Result:
    """A measurement with figures that are as long as they get."""
    times = {"low_ms": p50_ms, "high_ms": p50_ms, "p50_ms": p50_ms, "p90_ms": p50_ms, "p99_ms": p50_ms}
    return Result(
        backend=backend, precision="int8", batch=16, device="CPU", runs=3, **times, images_per_s=12345.6,
        nfe_per_s=98765.4, first_image_s=12.34, peak_mb=12345.0, gflops=1234.5, of_matmul=0.55,
    )  # fmt: skip


def test_table_of_bench_becomes_two_in_80_columns(monkeypatch: pytest.MonkeyPatch):
    narrow(monkeypatch)
    surroundings = {"cpu": "AMD", "flags": [], "threads": 2, "load_average": None, "versions": {}}
    text = report([measured("onnxruntime", 1234.56), measured("openvino", 2.5)], [], [], surroundings)
    assert too_wide(text) == []
    headings = [re.split(r" {2,}", line) for line in text.split("\n") if line.startswith("variant")]
    assert headings == [
        ["variant", "batch", "p50 ms", "p90", "p99", "images/s", "NFE/s"],
        ["variant", "batch", "first s", "peak MB", "GFLOP/s", "of matmul"],
    ]


def test_table_of_bench_is_one_in_a_pipe():
    surroundings = {"cpu": "AMD", "flags": [], "threads": 2, "load_average": None, "versions": {}}
    text = report([measured("onnxruntime", 1.5)], [], [], surroundings)
    assert text.count("int8 on onnxruntime") == 1 and "of matmul" in text


def test_parity_table_of_all_precisions_fits_80_columns(monkeypatch: pytest.MonkeyPatch):
    narrow(monkeypatch)
    error = MoveError("80>0.4>0.002 +0.1 0.1>1.2>0.002", 5, "0.4>0.002", 0.1, 1.5e-3, 60.0, True)
    text = parity_table({precision: [error] for precision in ("fp32", "fp16", "bf16", "int8")})
    assert too_wide(text) == []
    assert text.split("\n")[1].split() == ["schedule", "move", "fp32", "fp16", "bf16", "int8"]


@pytest.mark.parametrize(
    "command", ["inspect BUNDLE", "verify BUNDLE", "doctor BUNDLE", "reconstruct BUNDLE IMAGES -o out.npz"]
)
def test_output_in_a_terminal_of_80_columns(
    digits_bundle: Path, images_file: Path, tmp_path: Path, command: str
):
    (tmp_path / "digits.bundle").symlink_to(digits_bundle)
    (tmp_path / "six.npz").symlink_to(images_file)
    words = [{"BUNDLE": "digits.bundle", "IMAGES": "six.npz"}.get(word, word) for word in command.split()]
    text = on_pty(*words, cwd=tmp_path)
    shown_at_last = "\n".join(line.rsplit("\r", 1)[-1] for line in text.split("\n"))
    assert too_wide(re.sub(r"\x1b\[\??\d*[A-Zh-l]", "", shown_at_last)) == []


# Prose


def test_sentences_are_broken_between_words(monkeypatch: pytest.MonkeyPatch):
    narrow(monkeypatch)
    line = "caution: " + "the machine was busy while times were measured, " * 4
    lines = shown(line, sys.stdout).split("\n")
    assert max(map(len, lines)) <= 80 and len(lines) == 3
    assert lines[1].startswith("  ")
    assert " ".join(lines).split() == line.split()


def test_command_to_copy_stays_in_one_line(monkeypatch: pytest.MonkeyPatch):
    narrow(monkeypatch)
    line = f"make a bundle from it with: bcm-edge export {'x' * 80}.safetensors -o x.bundle"
    assert shown(line, sys.stdout) == line


# Colours


@pytest.mark.parametrize(
    ("line", "coloured"),
    [
        ("80>0.002  1.5e-07  ✓", [(GREEN, "✓")]),
        ("✗ backend openvino: openvino is not installed", [(RED, "✗")]),
        ("fp32 on onnxruntime against torch: 9.0e-07, bound 1e-04: ok (48 moves)", [(GREEN, "ok")]),
        ("fp16 on typed against torch: 9.0e-01, bound 5e-03: FAILED", [(RED, "FAILED")]),
        ("batch 1: int8 on openvino is 1.8× as fast as fp32 on openvino", [(GREEN, "1.8× as fast")]),
        ("batch 1: fp32 is slower here than int8 (2.0×): use int8", [(YELLOW, "slower here")]),
        ("error: no such file", [(RED, "error")]),
        ("note: the picture has no ok in it", []),
        ("error-free.bundle", []),
    ],
)
def test_verdicts_are_coloured_in_a_terminal(
    monkeypatch: pytest.MonkeyPatch, line: str, coloured: list[tuple[str, str]]
):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert COLOUR.findall(shown(line, Terminal())) == coloured
    assert shown(line, io.StringIO()) == line


def test_doctor_is_coloured_in_a_terminal_alone(process: Process, tmp_path: Path):
    coloured = on_pty("doctor", cwd=tmp_path)
    assert f"\x1b[{GREEN}m✓\x1b[0m machine: " in coloured
    assert "\x1b" not in on_pty("doctor", cwd=tmp_path, NO_COLOR="1")
    assert "\x1b" not in on_pty("doctor", cwd=tmp_path, TERM="dumb")
    assert "\x1b" not in process("doctor", FORCE_COLOR="").stdout
    assert f"\x1b[{GREEN}m✓\x1b[0m machine: " in process("doctor", FORCE_COLOR="1").stdout


def test_json_and_logs_have_no_colours(process: Process, tmp_path: Path):
    completed = process("doctor", "--json", "--log-file", tmp_path / "all.log", FORCE_COLOR="1")
    assert "\x1b" not in completed.stdout + (tmp_path / "all.log").read_text(encoding="utf-8")


def test_quiet_command_shows_no_bar_in_a_terminal(digits_bundle: Path, tmp_path: Path):
    arguments = ("generate", digits_bundle, "-n", 2, "--label", 3, "-o", "a.png")
    assert on_pty(*arguments, "-q", cwd=tmp_path) == "a.png\n"
    assert "2 images in" in on_pty(*arguments, "--force", cwd=tmp_path)
