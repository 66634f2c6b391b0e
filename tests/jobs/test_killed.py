"""kill -9 of a worker and of the command itself: the same files, each once, nothing half done and nothing done twice."""

from __future__ import annotations

import importlib.util
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from agreement import assert_images_agree
from processes import child

from bcm_edge import BCM

if importlib.util.find_spec("ray") is None:
    pytest.skip("Ray is not installed: pip install '.[scale]'", allow_module_level=True)
if not hasattr(os, "pidfd_open"):
    pytest.skip("waiting for the end of others' processes takes Linux", allow_module_level=True)

ROOT = Path(__file__).resolve().parent.parent.parent

pytestmark = pytest.mark.slow
SHARDS, ROWS = 12, 48
SCHEDULE = (
    "80>0.002" + 7 * " +0.1 0.1>0.002"
)  # 8 network calls, so that shards take long enough to be interrupted
PATIENCE = 240  # seconds; only a failure takes as long


@contextmanager
def started(bundle: Path, output: Path) -> Iterator[subprocess.Popen[str]]:
    """The command as a process of its own, on a Ray of its own with two workers, when its first shard is done."""
    arguments = [
        SHARDS * ROWS,
        "-o",
        output,
        "--task",
        "generate",
        "--schedule",
        SCHEDULE,
        "--label",
        "all",
        "--rows",
        ROWS,
    ]
    command = [
        sys.executable,
        str(ROOT / "cli.py"),
        "map",
        str(bundle),
        *map(str, arguments),
        "--workers",
        "2",
    ]
    # A killed command leaves Ray's logs. The name of their folder must be short.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        environment = {**os.environ, "TMPDIR": folder}
        with child(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
            assert running.stderr
            assert f"{SHARDS} shards" in running.stderr.readline()
            assert f" of {SHARDS} shards" in running.stderr.readline()
            running.send_signal(
                signal.SIGSTOP
            )  # it hands out no more shards; its workers end the ones they have
            yield running


def workers_of(process: int) -> list[int]:
    """The processes below this one that play shards; at least one, for which this waits."""
    limit = time.monotonic() + PATIENCE
    while not (workers := workers_now(process)):
        assert time.monotonic() < limit, "no worker was found"
        time.sleep(0.02)
    return workers


def workers_now(process: int) -> list[int]:
    parents = {int(folder.name): folder for folder in Path("/proc").iterdir() if folder.name.isdigit()}
    result = []
    for number in parents:
        try:
            title = (parents[number] / "cmdline").read_bytes()
            above = number
            while above not in (0, process):
                above = int((Path("/proc") / str(above) / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:  # ended meanwhile
            continue
        if above == process and title.startswith(b"ray::MapWorker"):
            result.append(number)
    return result


def await_end(processes: list[int]) -> None:
    for number in processes:
        try:
            descriptor = os.pidfd_open(number)
        except ProcessLookupError:
            continue
        completed, _, _ = select.select([descriptor], [], [], PATIENCE)
        os.close(descriptor)
        assert completed, f"process {number} outlives the command"


def check_whole(output: Path, bcm: BCM) -> None:
    """All files, nothing else, and in them what one call gives."""
    names = [f"generated-{index:05d}.npz" for index in range(SHARDS)]
    assert sorted(os.listdir(output)) == [*names, "job.json"]  # noqa: PTH208 (hidden files too)
    images = np.concatenate([np.load(output / name)["images"] for name in names])
    labels = np.arange(SHARDS * ROWS) % 10
    assert_images_agree(images, bcm.generate(SHARDS * ROWS, schedule=SCHEDULE, labels=labels))


def test_worker_that_is_killed_is_replaced(digits_bundle: Path, bcm: BCM, tmp_path: Path) -> None:
    output = tmp_path / "out"
    with started(digits_bundle, output) as running:
        os.kill(workers_of(running.pid)[0], signal.SIGKILL)
        assert len(list(output.glob("*.npz"))) < SHARDS, "too late: the job was done already"
        running.send_signal(signal.SIGCONT)
        answer, errors = running.communicate(timeout=PATIENCE)
    assert (running.returncode, answer) == (0, f"{output}\n"), errors
    check_whole(output, bcm)


def test_command_that_is_killed_goes_on(digits_bundle: Path, bcm: BCM, tmp_path: Path) -> None:
    output = tmp_path / "out"
    with started(digits_bundle, output) as running:
        workers = workers_of(running.pid)
        running.kill()
    await_end(workers)
    before = {file.name: file.stat().st_mtime_ns for file in output.glob("*.npz")}
    assert 0 < len(before) < SHARDS
    (output / f".generated-{SHARDS - 1:05d}.npz.partial-elsewhere-1").write_text("of another machine")
    with started(digits_bundle, output) as again:
        again.send_signal(signal.SIGCONT)
        answer, errors = again.communicate(timeout=PATIENCE)
    assert (again.returncode, answer) == (0, f"{output}\n"), errors
    assert {name: (output / name).stat().st_mtime_ns for name in before} == before
    check_whole(output, bcm)
