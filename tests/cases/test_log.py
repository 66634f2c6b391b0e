"""-v, --log-file and `doctor --report`: what a report of a problem needs, and nothing else of the user's."""

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
    """A home folder with a cache that nobody has used."""
    folder = tmp_path / "mary"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("BCM_EDGE_CACHE_DIR", str(folder / "cache"))
    return folder


def logged(file: Path) -> list[str]:
    """The messages of a log file, without their times."""
    return [re.sub(r"^\[ *\d+\.\d{3} s\] ", "", line) for line in file.read_text().splitlines()]


def test_the_log_of_a_generation(digits_bundle: Path, home: Path, process: Process):
    ended = process(
        "generate",
        digits_bundle,
        "--label",
        3,
        "-o",
        home / "x.png",
        "--log-file",
        home / "a.log",
        ORT_SOMETHING="1",
    )
    assert (ended.returncode, ended.stdout) == (0, f"{home / 'x.png'}\n")
    assert ended.stderr.count("\n") == 1  # as without a log
    lines = logged(home / "a.log")
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
    assert any(re.fullmatch(r"generating \(1 NFE\): \d+\.\d{3} s", line) for line in lines)
    assert re.fullmatch(r"done in \d+\.\d{3} s", lines[-1])
    assert str(home) not in (home / "a.log").read_text()


def test_the_next_command_is_added_and_says_that_the_cache_entry_was_reused(
    digits_bundle: Path, home: Path, cli: Cli
):
    for seed in (0, 1):
        ended = cli(
            "--log-file",
            home / "a.log",
            "generate",
            digits_bundle,
            "--label",
            3,
            "--seed",
            seed,
            "-o",
            home / f"{seed}.png",
        )
        assert ended.exit_code == 0, ended.stderr
    lines = logged(home / "a.log")
    assert len([line for line in lines if line.startswith("log of bcm-edge, ")]) == 2
    (entry,) = (home / "cache" / "onnxruntime").iterdir()
    assert f"cache entry of fp32 graphs: reused, ~/cache/onnxruntime/{entry.name}" in lines


def test_an_error_has_its_traceback_in_the_log_and_one_line_on_stderr(
    digits_bundle: Path, home: Path, process: Process
):
    arguments = ("generate", digits_bundle, "--label", 99, "-o", home / "x.png")
    plain, noted = process(*arguments), process(*arguments, "--log-file", home / "a.log")
    assert (noted.returncode, noted.stdout, noted.stderr) == (plain.returncode, plain.stdout, plain.stderr)
    assert (noted.returncode, noted.stderr) == (
        2,
        "error: label 99 is out of range; this model has classes 0 to 9\n",
    )
    log = (home / "a.log").read_text()
    assert "ERROR ended with LabelError after " in log
    assert "Traceback (most recent call last):\n" in log and "in generate\n" in log
    assert log.count("Traceback") == 1


def test_an_error_of_usage_and_an_exit_code_are_in_the_log(digits_bundle: Path, home: Path, cli: Cli):
    assert cli("generate", digits_bundle, "--seed", "x", "--log-file", home / "a.log").exit_code == 2
    assert "ERROR ended with BadParameter after " in (home / "a.log").read_text()
    ended = cli("doctor", home / "no.bundle", "--log-file", home / "b.log")
    assert ended.exit_code == 1
    assert re.match(r"ended with exit code 1 after \d+\.\d{3} s", logged(home / "b.log")[-1])


@pytest.mark.parametrize("before", [True, False], ids=["before the command's name", "after it"])
def test_verbose_says_the_same_on_stderr(digits_bundle: Path, home: Path, cli: Cli, before: bool):
    arguments = ["generate", digits_bundle, "--label", 3, "-o", home / "x.png", "--json"]
    ended = cli("-v", *arguments) if before else cli(*arguments, "--verbose")
    assert ended.exit_code == 0
    assert json.loads(ended.stdout)["backend"] == "onnxruntime"
    assert "s] backend onnxruntime: chosen for fp32\n" in ended.stderr
    assert ended.stderr.count("1 image in ") == 1  # what a command says anyway is not repeated
    assert str(home) not in ended.stderr


def test_verbose_keeps_an_error_in_one_line(digits_bundle: Path, home: Path, cli: Cli):
    ended = cli("generate", digits_bundle, "--label", 99, "-o", home / "x.png", "-v")
    assert ended.exit_code == 2 and "Traceback" not in ended.stderr
    assert ended.stderr.endswith("\nerror: label 99 is out of range; this model has classes 0 to 9\n")


def test_every_command_has_both_options(cli: Cli):
    from bcm_edge.cli import Commands

    for name in Commands.homes:
        ended = cli(name, "--help")
        assert (
            ended.exit_code == 0 and "--log-file FILE" in ended.stdout and "-v, --verbose" in ended.stdout
        ), name


def folder_in_place(path: Path) -> None:
    path.mkdir()


def file_for_folder(path: Path) -> None:
    path.parent.rmdir()
    path.parent.write_text("")


def users_file(path: Path) -> None:
    path.write_bytes(b"\x89PNG not a log")


@pytest.mark.parametrize("spoil", [folder_in_place, file_for_folder, users_file])
def test_a_log_file_that_cannot_be_written_is_one_error_before_anything_runs(
    digits_bundle: Path, home: Path, cli: Cli, spoil: Callable[[Path], None]
):
    log = home / "logs" / "a.log"
    log.parent.mkdir()
    spoil(log)
    content = log.read_bytes() if log.is_file() else None
    for arguments in (["generate", "--log-file", log], ["--log-file", log, "generate"]):
        message = refusal(cli(*arguments, digits_bundle, "--label", 3, "-o", home / "x.png"))
        assert message.startswith(str(log)) and re.search(
            "the log file cannot be written|is not a log file of bcm-edge", message
        )
    assert (log.read_bytes() if log.is_file() else None) == content
    assert not (home / "x.png").exists() and not (home / "cache").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_a_full_disk_for_the_log(home: Path, cli: Cli, digits_bundle: Path):
    message = refusal(
        cli("generate", digits_bundle, "--label", 3, "-o", home / "x.png", "--log-file", "/dev/full")
    )
    assert message == "/dev/full: the log file cannot be written (No space left on device)"


def test_a_disk_that_fills_up_ends_the_log_and_not_the_command(
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
    ended = cli("generate", digits_bundle, "--label", 3, "-o", home / "x.png", "--log-file", home / "a.log")
    assert ended.exit_code == 0 and (home / "x.png").exists()
    assert ended.stderr.count("a.log: the log ends here, it cannot be written any more") == 1
    assert "backend onnxruntime: chosen for fp32" in written[-1]


def test_nothing_of_the_environment_but_named_variables_is_shown(
    home: Path, process: Process, digits_bundle: Path
):
    secrets = {
        "AWS_SECRET_ACCESS_KEY": "hunter2",
        "HF_TOKEN": "hunter3",
        "OMP_NUM_THREADS": "2",
        "BCM_EDGE_THREADS": "1",
    }
    shown = process("doctor", "--report", digits_bundle, **secrets).stdout
    assert "hunter" not in shown
    assert "variable: OMP_NUM_THREADS=2\n" in shown and "variable: BCM_EDGE_THREADS=1\n" in shown
    assert "variable: BCM_EDGE_CACHE_DIR=~/cache\n" in shown and str(home) not in shown


def test_the_report_of_doctor_is_the_log_of_the_environment_and_the_findings(home: Path, cli: Cli):
    plain, noted = cli("doctor"), cli("doctor", "--report")
    assert noted.exit_code == plain.exit_code == 0
    environment = [line for line in report() if not line.startswith("memory")]
    assert all(f"{line}\n" in noted.stdout for line in environment)
    assert "✓ backend onnxruntime: can run bundles\n" in noted.stdout
    assert json.loads(cli("doctor", "--report", "--json").stdout)["report"][0] == environment[0]


def test_a_number_of_threads_that_is_none_is_in_the_report(
    home: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("BCM_EDGE_THREADS", "two")
    ended = cli("doctor", "--report")
    assert ended.exit_code == 1
    assert "threads: BCM_EDGE_THREADS must be a positive integer, not 'two'; " in ended.stdout
    assert "✗ machine: " in ended.stdout and "\n    fix: unset BCM_EDGE_THREADS\n" in ended.stdout


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
def test_the_home_folder_is_written_as_a_tilde(monkeypatch: pytest.MonkeyPatch, text: str, expected: str):
    monkeypatch.setenv("HOME", "/home/mary")
    assert without_home(text) == expected


def test_a_log_file_that_is_given_twice_is_written_once(cli: Cli, digits_bundle: Path, tmp_path: Path):
    log = tmp_path / "a.log"
    assert cli("--log-file", log, "inspect", digits_bundle, "--log-file", log).exit_code == 0
    assert log.read_text().count("command: ") == 1


def test_a_pipe_is_not_a_log_file(cli: Cli, digits_bundle: Path, tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    assert "is a pipe; a log is written to a file" in refusal(
        cli("inspect", digits_bundle, "--log-file", tmp_path / "pipe")
    )


def test_users_of_the_library_get_the_log_where_they_ask_for_it(
    digits_bundle: Path, caplog: pytest.LogCaptureFixture
):
    with caplog.at_level(logging.INFO, logger="bcm_edge"):
        bcm_edge.load(digits_bundle).close()
    assert "backend onnxruntime: chosen for fp32" in caplog.messages
    assert logging.getLogger("bcm_edge").level == logging.NOTSET


def test_nothing_is_printed_where_nobody_asked(digits_bundle: Path, home: Path, cli: Cli):
    ended = cli("inspect", digits_bundle)
    assert (ended.exit_code, ended.stderr) == (0, "")
    assert [type(handler) for handler in logging.getLogger("bcm_edge").handlers] == [logging.NullHandler]
