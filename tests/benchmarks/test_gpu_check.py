"""benchmarks/gpu_check.py without a GPU: its steps, their time, and the summary.

The rehearsal runs the whole command over stand-ins for the hardware.
"""

from __future__ import annotations

import json
import math
import os
import signal
import sys
from pathlib import Path
from unittest.mock import patch

import pytest
from gpu_figures import check

PRINT = "import sys; print(sys.argv[1:])"


def step(name: str, code: str, *arguments: str, share: float = 1.0) -> object:
    """A step that runs Python code."""
    return check.Step(name, [sys.executable, "-c", code, *arguments], share, f"{name}.txt")


def test_tests_come_before_the_benchmarks(tmp_path: Path):
    steps = check.steps(tmp_path, ["--batch", "1"])
    assert [each.name for each in steps] == ["doctor", "tests", "benchmark, main", "benchmark, options"]
    for each in steps[2:]:
        assert each.command[-2:] == ["--batch", "1"]
    assert [each.command[3] for each in steps[2:]] == ["main", "options"]
    files = [Path(word).stem for word in steps[1].command if word.endswith(".py")]
    assert set(files[:3]) == {"test_device_chain", "test_noise", "test_torch"}  # they build no engines
    assert files[3:] == ["test_backends", "test_engines", "test_profiles"]


def test_output_of_a_step_is_in_its_file(tmp_path: Path):
    outcome = check.run(step("doctor", "print('a GPU'); raise SystemExit(3)"), math.inf, tmp_path / "log")
    assert (outcome.exit_code, outcome.reason) == (3, None)
    assert (tmp_path / "log").read_text() == "a GPU\n"


def test_step_is_stopped_when_its_time_is_over(tmp_path: Path):
    outcome = check.run(step("tests", "import signal; signal.pause()"), 0.5, tmp_path / "log")
    assert (outcome.exit_code, outcome.reason) == (None, "stopped after 0 s")


@pytest.mark.slow
def test_interrupted_tests_write_their_report(tmp_path: Path):
    """The first failure, and the names of the tests that ran, must not be lost when the time is over."""
    test, report, begun = tmp_path / "test_slow.py", tmp_path / "tests.xml", tmp_path / "begun"
    log = tmp_path / "tests.txt"
    os.mkfifo(begun)
    test.write_text(
        "import signal\ndef test_wrong():\n    assert 1 == 2\n"
        f"def test_slow():\n    open({str(begun)!r}, 'w').close()\n    signal.pause()\n"
    )
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", str(test), f"--junitxml={report}"]
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as in the background of a shell
    try:
        with log.open("w") as output, check.start(command, output) as process:
            begun.read_text()  # waits until the slow test has begun
            check.interrupt(process, 60)
            process.kill()
    finally:
        signal.signal(signal.SIGINT, previous)
    assert process.returncode == 2
    assert "1 failed" in log.read_text()
    assert "assert 1 == 2" in report.read_text()


@pytest.mark.parametrize(("seconds", "passed"), [(100.0, ["--budget", "90"]), (math.inf, [])])
def test_benchmark_ends_a_little_earlier_than_its_time(seconds: float, passed: list[str], tmp_path: Path):
    check.run(step("benchmark, main", PRINT), seconds, tmp_path / "log")
    assert (tmp_path / "log").read_text().strip() == str(passed)


def test_failed_step_does_not_stop_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def steps(output: Path, benchmark: list[str]) -> list[object]:
        summary = output / "summary.json"
        count = f"import json; print(len(json.load(open({str(summary)!r}))['steps']))"
        return [step("doctor", "raise SystemExit(1)"), step("tests", count), step("benchmark", count)]

    monkeypatch.setattr(check, "steps", steps)
    with patch.object(sys, "argv", ["gpu_check.py", "-o", str(tmp_path)]), pytest.raises(SystemExit) as end:
        check.main()
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert end.value.code == 1
    assert [(each["name"], each["exit_code"]) for each in summary["steps"]] == [
        ("doctor", 1),
        ("tests", 0),
        ("benchmark", 0),
    ]
    counts = [int((tmp_path / f"{name}.txt").read_text()) for name in ("tests", "benchmark")]
    assert counts == [1, 2]  # the summary was written after every step
