"""The time budget of benchmarks/gpu.py, and processes that are stopped when it is used up."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from gpu_figures import BENCHMARKS, limits


def test_budget_without_a_limit_is_never_used_up():
    budget = limits.Budget.start(float("inf"))
    assert budget.left() == budget.share(3).left() == float("inf")


def test_share_of_the_budget():
    budget = limits.Budget(300.0, time.monotonic() + 90.0)
    part = budget.share(3)
    assert 20 < part.left() <= 30
    assert budget.reason == "the time budget of 300 s was used up"
    assert part.reason == "the time budget of 300 s was used up (this batch size had 30 s)"
    assert limits.Budget(300.0, time.monotonic() - 1).left() == 0


def test_block_is_stopped_when_its_time_is_over():
    with pytest.raises(limits.TooLong), limits.within(0.05):
        threading.Event().wait(60)
    with limits.within(60):
        pass
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_process_that_hangs_is_killed():
    with pytest.raises(subprocess.TimeoutExpired):
        limits.run([sys.executable, "-c", "import signal; signal.pause()"], 0.5)


WORKER = """
import signal, sys
sys.path.insert(0, {benchmarks!r})
import gpu_limits
{first}
file = open({fifo!r}, "w")
print("open", flush=True)
signal.pause()
"""


START_WORKER = """
import subprocess, sys
command = [sys.executable, "-c", {worker!r}]
worker = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session={apart})
print(worker.stdout.readline())
"""


@pytest.fixture
def start_worker(tmp_path: Path) -> Iterator[Callable[[str, bool], str]]:
    """Return code that starts a process which never ends by itself. After the test it must have ended.

    first: code that the process runs first. apart: whether it leads a process group of its own.
    """
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)

    def code(first: str, apart: bool) -> str:
        worker = WORKER.format(benchmarks=str(BENCHMARKS), first=first, fifo=str(fifo))
        return START_WORKER.format(worker=worker, apart=apart)

    yield code
    ready, _, _ = select.select([reader], [], [], 30)  # the end of the file: no process has it open
    os.close(reader)
    assert ready == [reader], "the process is still running"


def test_child_processes_end_with_their_process(start_worker: Callable[[str, bool], str]):
    assert limits.run([sys.executable, "-c", start_worker("", False)], 120.0) is None


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can end a process with its parent")
def test_stage_ends_with_the_command(start_worker: Callable[[str, bool], str]):
    code = start_worker("gpu_limits.end_with_parent()", True)
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("pass", None),
        ("print('first'); print('no memory'); raise SystemExit(3)", "no memory"),
        ("raise SystemExit(3)", "its process ended with exit code 3"),
        ("import os; print('a line'); os.kill(os.getpid(), 9)", "its process was killed by SIGKILL"),
    ],
)
def test_failed_process_has_a_reason(code: str, reason: str | None):
    assert limits.run([sys.executable, "-c", code], 60.0) == reason
