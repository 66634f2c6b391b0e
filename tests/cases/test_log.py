"""-v, --log-file and `doctor --report`: they show what a problem report needs, and no private data."""

from __future__ import annotations

import importlib.metadata
import json
import logging
import os
import platform
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from fixture_types import Cli, Process
from refusals import refusal

import bcm_edge
from bcm_edge.runtime.checks.report import report
from bcm_edge.runtime.log import without_home


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder with an unused cache."""
    folder = tmp_path / "mary"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("BCM_EDGE_CACHE_DIR", str(folder / "cache"))
    return folder


def log_lines(file: Path) -> list[str]:
    """The messages of a log file, without their times."""
    return [re.sub(r"^\[ *\d+\.\d{3} s\] ", "", line) for line in file.read_text().splitlines()]


def test_log_of_generate(digits_bundle: Path, home: Path, process: Process):
    options = ("--label", 3, "-o", home / "x.png", "--log-file", home / "a.log")
    completed = process("generate", digits_bundle, *options, ORT_SOMETHING="1")
    assert (completed.returncode, completed.stdout) == (0, f"{home / 'x.png'}\n")
    assert completed.stderr.count("\n") == 1  # the same as without a log
    lines = log_lines(home / "a.log")
    assert re.fullmatch(r"log of bcm-edge, \d{4}-\d\d-\d\d \d\d:\d\d:\d\d [+-]\d{4}", lines[0])
    assert lines[1].startswith(f"bcm-edge {bcm_edge.__version__}, Python {platform.python_version()}, ")
    versions = next(line for line in lines if line.startswith("libraries: "))
    assert f"numpy {importlib.metadata.version('numpy')}" in versions
    assert f"onnxruntime {importlib.metadata.version('onnxruntime')}" in versions
    assert f"command: bcm-edge generate {digits_bundle} --label 3 -o ~/x.png --log-file ~/a.log" in lines
    assert "variable: ORT_SOMETHING=1" in lines and "cache: ~/cache" in lines
    assert any(re.match(r"bundle: .*\(digits\), precisions fp32", line) for line in lines)
    manifest = json.loads((digits_bundle / "manifest.json").read_text())
    assert f"bundle: weights.bin, sha256 {manifest['files']['weights.bin']['sha256']}" in lines
    assert any(line.startswith("backend tensorrt: not chosen, ") for line in lines)
    assert "backend onnxruntime: chosen for fp32" in lines
    assert "backend openvino: not tried, onnxruntime comes first for fp32 on this processor" in lines
    assert any(
        re.fullmatch(
            r"cache entry of fp32 graphs: making ~/cache/onnxruntime/[0-9a-f]{32}: \d+\.\d{3} s", line
        )
        for line in lines
    )
    assert any(re.fullmatch(r"generating: \d+\.\d{3} s", line) for line in lines)
    assert re.fullmatch(r"done in \d+\.\d{3} s", lines[-1])
    assert str(home) not in (home / "a.log").read_text()


def test_next_command_is_appended_and_reuses_the_cache_entry(digits_bundle: Path, home: Path, cli: Cli):
    for seed in (0, 1):
        options = ("--label", 3, "--seed", seed, "-o", home / f"{seed}.png")
        result = cli("--log-file", home / "a.log", "generate", digits_bundle, *options)
        assert result.exit_code == 0, result.stderr
    lines = log_lines(home / "a.log")
    assert len([line for line in lines if line.startswith("log of bcm-edge, ")]) == 2
    (entry,) = (home / "cache" / "onnxruntime").iterdir()
    assert f"cache entry of fp32 graphs: reused, ~/cache/onnxruntime/{entry.name}" in lines


def test_traceback_of_an_error_is_in_the_log_only(digits_bundle: Path, home: Path, process: Process):
    arguments = ("generate", digits_bundle, "--label", 99, "-o", home / "x.png")
    plain, logged_run = process(*arguments), process(*arguments, "--log-file", home / "a.log")
    assert (logged_run.returncode, logged_run.stdout, logged_run.stderr) == (
        plain.returncode,
        plain.stdout,
        plain.stderr,
    )
    assert (logged_run.returncode, logged_run.stderr) == (
        2,
        "error: label 99 is out of range; this model has classes 0 to 9\n",
    )
    log = (home / "a.log").read_text()
    assert "ERROR ended with LabelError after " in log
    assert "Traceback (most recent call last):\n" in log and "in generate\n" in log
    assert log.count("Traceback") == 1


def test_usage_errors_and_exit_codes_are_in_the_log(digits_bundle: Path, home: Path, cli: Cli):
    assert cli("generate", digits_bundle, "--seed", "x", "--log-file", home / "a.log").exit_code == 2
    assert "ERROR ended with BadParameter after " in (home / "a.log").read_text()
    result = cli("doctor", home / "no.bundle", "--log-file", home / "b.log")
    assert result.exit_code == 1
    assert re.match(r"ended with exit code 1 after \d+\.\d{3} s", log_lines(home / "b.log")[-1])


@pytest.mark.parametrize("option_first", [True, False], ids=["before the command's name", "after it"])
def test_verbose_prints_the_log_on_stderr(digits_bundle: Path, home: Path, cli: Cli, option_first: bool):
    arguments = ["generate", digits_bundle, "--label", 3, "-o", home / "x.png", "--json"]
    result = cli("-v", *arguments) if option_first else cli(*arguments, "--verbose")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["backend"] == "onnxruntime"
    assert "s] backend onnxruntime: chosen for fp32\n" in result.stderr
    assert result.stderr.count("1 image in ") == 1  # what a command prints anyway is not repeated
    assert str(home) not in result.stderr


def test_verbose_keeps_an_error_in_one_line(digits_bundle: Path, home: Path, cli: Cli):
    result = cli("generate", digits_bundle, "--label", 99, "-o", home / "x.png", "-v")
    assert result.exit_code == 2 and "Traceback" not in result.stderr
    assert result.stderr.endswith("\nerror: label 99 is out of range; this model has classes 0 to 9\n")


def test_every_command_has_both_options(cli: Cli):
    from bcm_edge.cli import Commands

    for name in Commands.homes:
        result = cli(name, "--help")
        assert (
            result.exit_code == 0 and "--log-file FILE" in result.stdout and "-v, --verbose" in result.stdout
        ), name


def make_a_folder_of_that_name(path: Path) -> None:
    """Make a folder with the name of the log file."""
    path.mkdir()


def replace_the_folder_by_a_file(path: Path) -> None:
    """Replace the folder of the log file by a file."""
    path.parent.rmdir()
    path.parent.write_text("")


def write_another_file(path: Path) -> None:
    """Write a file that is not a log."""
    path.write_bytes(b"\x89PNG not a log")


@pytest.mark.parametrize(
    "prepare", [make_a_folder_of_that_name, replace_the_folder_by_a_file, write_another_file]
)
def test_unwritable_log_file_is_refused_before_the_command_runs(
    digits_bundle: Path, home: Path, cli: Cli, prepare: Callable[[Path], None]
):
    log = home / "logs" / "a.log"
    log.parent.mkdir()
    prepare(log)
    content = log.read_bytes() if log.is_file() else None
    for arguments in (["generate", "--log-file", log], ["--log-file", log, "generate"]):
        message = refusal(cli(*arguments, digits_bundle, "--label", 3, "-o", home / "x.png"))
        assert message.startswith(str(log)) and re.search(
            "the log file cannot be written|is not a log file of bcm-edge", message
        )
    assert (log.read_bytes() if log.is_file() else None) == content
    assert not (home / "x.png").exists() and not (home / "cache").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_log_on_a_full_disk(home: Path, cli: Cli, digits_bundle: Path):
    message = refusal(
        cli("generate", digits_bundle, "--label", 3, "-o", home / "x.png", "--log-file", "/dev/full")
    )
    assert (
        message
        == "/dev/full: the log file cannot be written (No space left on device); give another --log-file"
    )


def test_disk_that_fills_up_ends_the_log_and_not_the_command(
    home: Path, cli: Cli, digits_bundle: Path, monkeypatch: pytest.MonkeyPatch
):
    written: list[str] = []
    format_record = logging.FileHandler.format

    def full(handler: logging.FileHandler, record: logging.LogRecord) -> str:
        written.append(record.getMessage())
        if "backend onnxruntime: chosen" in record.getMessage():
            raise OSError(28, "No space left on device")
        return format_record(handler, record)

    from bcm_edge.commands import log

    monkeypatch.setattr(log._File, "format", full)
    result = cli("generate", digits_bundle, "--label", 3, "-o", home / "x.png", "--log-file", home / "a.log")
    assert result.exit_code == 0 and (home / "x.png").exists()
    assert result.stderr.count("a.log: the log file can no longer be written") == 1
    assert "backend onnxruntime: chosen for fp32" in written[-1]


def test_report_shows_only_known_environment_variables(home: Path, process: Process, digits_bundle: Path):
    secrets = {
        "AWS_SECRET_ACCESS_KEY": "hunter2",
        "HF_TOKEN": "hunter3",
        "OMP_NUM_THREADS": "2",
        "BCM_EDGE_THREADS": "1",
    }
    output = process("doctor", "--report", digits_bundle, **secrets).stdout
    assert "hunter" not in output
    assert "variable: OMP_NUM_THREADS=2\n" in output and "variable: BCM_EDGE_THREADS=1\n" in output
    assert "variable: BCM_EDGE_CACHE_DIR=~/cache\n" in output and str(home) not in output


def test_report_of_doctor_has_the_environment_and_the_checks(home: Path, cli: Cli):
    plain, logged_run = cli("doctor"), cli("doctor", "--report")
    assert logged_run.exit_code == plain.exit_code == 0
    environment = [line for line in report() if not line.startswith("memory")]
    assert all(f"{line}\n" in logged_run.stdout for line in environment)
    assert "✓ backend onnxruntime: can run bundles\n" in logged_run.stdout
    assert json.loads(cli("doctor", "--report", "--json").stdout)["report"][0] == environment[0]


def test_invalid_number_of_threads_is_in_the_report(home: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("BCM_EDGE_THREADS", "two")
    result = cli("doctor", "--report")
    assert result.exit_code == 1
    assert "threads: BCM_EDGE_THREADS must be a positive integer up to 1024, not 'two'; " in result.stdout
    assert "✗ machine: " in result.stdout and "\n    fix: unset BCM_EDGE_THREADS\n" in result.stdout


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/home/mary/a.png", "~/a.png"),
        ("in /home/mary", "in ~"),
        ("'/home/mary/b', line 3", "'~/b', line 3"),
        ("/home/mary2/a.png", "/home/mary2/a.png"),
        ("/mnt/home/mary/a.png", "/mnt/home/mary/a.png"),
        ("/home/mary.old", "/home/mary.old"),
    ],
)
def test_home_folder_is_written_as_a_tilde(monkeypatch: pytest.MonkeyPatch, text: str, expected: str):
    monkeypatch.setenv("HOME", "/home/mary")
    assert without_home(text) == expected


def test_log_file_given_twice_is_written_once(cli: Cli, digits_bundle: Path, tmp_path: Path):
    log = tmp_path / "a.log"
    assert cli("--log-file", log, "inspect", digits_bundle, "--log-file", log).exit_code == 0
    assert log.read_text().count("command: ") == 1


def test_pipe_is_refused_as_a_log_file(cli: Cli, digits_bundle: Path, tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    assert "is a pipe; --log-file needs a regular file" in refusal(
        cli("inspect", digits_bundle, "--log-file", tmp_path / "pipe")
    )


def test_library_logs_to_the_logger_bcm_edge(digits_bundle: Path, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.INFO, logger="bcm_edge"):
        bcm_edge.load(digits_bundle).close()
    assert "backend onnxruntime: chosen for fp32" in caplog.messages
    assert logging.getLogger("bcm_edge").level == logging.NOTSET


def test_nothing_is_logged_by_default(digits_bundle: Path, home: Path, cli: Cli):
    result = cli("inspect", digits_bundle)
    assert (result.exit_code, result.stderr) == (0, "")
    assert [type(handler) for handler in logging.getLogger("bcm_edge").handlers] == [logging.NullHandler]
