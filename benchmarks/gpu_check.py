"""Check this package on an NVIDIA GPU, and measure it: tests, then benchmarks, into one folder.

    python benchmarks/gpu_check.py -o gpu-report                    as long as it takes
    python benchmarks/gpu_check.py -o gpu-report --budget 840       end within 14 minutes

The steps run one after the other, each within a part of the remaining time. A step that fails or takes too
long does not stop the next ones. Nothing is installed, and no network access is needed. The folder gets:

    summary.json     each step: seconds, exit code, or why it was stopped; written after every step
    doctor.txt       the machine, and what each backend lacks
    tests.xml        the results of tests/gpu; tests.txt has their output
    main.json        one variant per library (benchmarks/gpu.py); main.md is its report
    options.json     options of TensorRT and of ONNX Runtime; options.md is its report

Other options are those of benchmarks/gpu.py, and are passed to it. The exit code is 1 if a step failed.
"""

from __future__ import annotations

import argparse
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from gpu_arguments import positive
from networks import ROOT
from result_files import origin, write_json

GPU = ROOT / "benchmarks" / "gpu.py"
GRACE = 10.0  # seconds that an interrupted step gets to write what it has


@dataclass(frozen=True)
class Step:
    """A process. share: the part of the remaining time that it may take. log: the file of its output."""

    name: str
    command: Sequence[str]
    share: float
    log: str


@dataclass(frozen=True)
class Outcome:
    """How a step ended. exit_code: None if it was stopped."""

    name: str
    seconds: float
    exit_code: int | None
    reason: str | None


def main() -> None:
    """Run all steps."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form, allow_abbrev=False)
    parser.add_argument("-o", dest="output", type=Path, required=True, help="the folder")
    parser.add_argument(
        "--budget",
        type=positive,
        default=math.inf,
        help="wall-clock seconds for all steps (default: no limit)",
    )
    parser.add_argument("--folder", type=Path, help="keeps bundle and engines for later calls; 5 GB")
    arguments, benchmark = parser.parse_known_args()
    end = time.monotonic() + arguments.budget
    arguments.output.mkdir(parents=True, exist_ok=True)
    measured_by = origin()
    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory() as scratch:
        work = str(arguments.folder or scratch)
        for step in steps(arguments.output, [*benchmark, "--folder", work]):
            left = (end - time.monotonic()) * step.share
            print(f"{step.name}: {'no limit' if math.isinf(left) else f'at most {left:.0f} s'}", flush=True)
            outcomes.append(run(step, left, arguments.output / step.log))
            print(f"{step.name}: {ending(outcomes[-1])}", flush=True)
            summary = {**measured_by, "steps": [asdict(outcome) for outcome in outcomes]}
            write_json(arguments.output / "summary.json", summary, indent=1)
    sys.exit(0 if all(outcome.exit_code == 0 for outcome in outcomes) else 1)


def steps(output: Path, benchmark: Sequence[str]) -> list[Step]:
    """Return all steps. benchmark: options of benchmarks/gpu.py."""
    doctor = [sys.executable, "-m", "bcm_edge.cli", "doctor"]
    report = f"--junitxml={(output / 'tests.xml').resolve()}"
    # Those that build engines come last, so that the others run even if the time is short.
    building = ("test_backends", "test_engines", "test_profiles")
    files = sorted((ROOT / "tests" / "gpu").glob("test_*.py"), key=lambda file: (file.stem in building, file))
    tests = [sys.executable, "-m", "pytest", *map(str, files), "-v", "-rs", "--durations=10", report]
    made = [Step("doctor", doctor, 0.1, "doctor.txt"), Step("tests", tests, 0.4, "tests.txt")]
    for name, share in (("main", 0.6), ("options", 1.0)):
        results = ["--variants", name, "-o", str(output / f"{name}.json")]
        command = [sys.executable, str(GPU), *results, *benchmark]
        made.append(Step(f"benchmark, {name}", command, share, f"{name}.md"))
    return made


def run(step: Step, seconds: float, log: Path) -> Outcome:
    """Run a step. Its standard output goes to a file. Its whole process group is killed after this time.

    A little earlier it writes its report: benchmarks/gpu.py has a time budget, and pytest is interrupted.
    """
    command, limit = list(step.command), seconds
    if step.name.startswith("benchmark") and not math.isinf(seconds):
        command += ["--budget", f"{max(seconds - GRACE, 1):.0f}"]
    else:
        limit -= min(GRACE, seconds / 10)
    started = time.monotonic()
    with log.open("w") as output:
        process = start(command, output)
        try:
            code = process.wait(None if math.isinf(seconds) else max(limit, 0))
        except subprocess.TimeoutExpired:
            code = None
            interrupt(process, max(seconds - limit, 0))
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            with suppress(subprocess.TimeoutExpired):
                process.wait(5)  # a driver may hold a killed process
    reason = f"stopped after {seconds:.0f} s" if code is None else None
    return Outcome(step.name, round(time.monotonic() - started, 1), code, reason)


def start(command: Sequence[str], output: IO[str]) -> subprocess.Popen[bytes]:
    """Start a command in a process group of its own. Its standard output goes to a file.

    It can be interrupted, also if this process cannot: shells start background commands without SIGINT.
    """
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return subprocess.Popen(command, stdout=output, cwd=ROOT, start_new_session=True)
    finally:
        signal.signal(signal.SIGINT, previous)


def interrupt(process: subprocess.Popen[bytes], seconds: float) -> None:
    """Interrupt a process, and wait for its end for at most this time, in which pytest writes its report."""
    process.send_signal(signal.SIGINT)
    with suppress(subprocess.TimeoutExpired):
        process.wait(seconds)


def ending(outcome: Outcome) -> str:
    """Return how a step ended, as text."""
    return outcome.reason or f"exit code {outcome.exit_code} after {outcome.seconds:.0f} s"


if __name__ == "__main__":
    main()
