"""A worker or the command is killed with SIGKILL: every file is complete, and no shard is played twice."""

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
from fixture_types import ROOT
from processes import child

from bcm_edge import BCM

if importlib.util.find_spec("ray") is None:
    pytest.skip("Ray is not installed: pip install '.[scale]'", allow_module_level=True)
if not hasattr(os, "pidfd_open"):
    pytest.skip("only Linux can wait for processes of others", allow_module_level=True)


pytestmark = pytest.mark.slow
SHARDS, ROWS = 12, 48
SCHEDULE = "80>0.002" + 7 * " +0.1 0.1>0.002"  # 8 network calls, so that there is time to interrupt a shard
PATIENCE = 240  # seconds, after which a wait has failed


@contextmanager
def started(bundle: Path, output: Path) -> Iterator[subprocess.Popen[str]]:
    """Run the command on its own Ray cluster with two workers, and stop it after its first shard."""
    options = ["--task", "generate", "--schedule", SCHEDULE, "--label", "all", "--rows", ROWS, "--workers", 2]
    arguments = ["map", bundle, SHARDS * ROWS, "-o", output, *options]
    command = [sys.executable, str(ROOT / "cli.py"), *map(str, arguments)]
    # A killed command leaves the logs of Ray. The name of their folder must be short.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        environment = {**os.environ, "TMPDIR": folder}
        with child(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
            assert running.stderr
            assert f"{SHARDS} shards" in running.stderr.readline()
            assert f" of {SHARDS} shards" in running.stderr.readline()
            # A stopped command assigns no more shards. Its workers finish the shards that they have.
            running.send_signal(signal.SIGSTOP)
            yield running


def workers_of(process: int) -> list[int]:
    """Wait for the first worker of a process, and return all workers that it has then."""
    limit = time.monotonic() + PATIENCE
    while not (workers := workers_now(process)):
        assert time.monotonic() < limit, "no worker was found"
        time.sleep(0.02)
    return workers


def workers_now(process: int) -> list[int]:
    """Return the descendants of a process that play shards."""
    workers = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            title = (folder / "cmdline").read_bytes()
            ancestor = int(folder.name)
            while ancestor not in (0, process):
                ancestor = parent_of(ancestor)
        except OSError:  # the process has ended
            continue
        if ancestor == process and title.startswith(b"ray::MapWorker"):
            workers.append(int(folder.name))
    return workers


def parent_of(process: int) -> int:
    """Return the parent of a process."""
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])


def await_end(processes: list[int]) -> None:
    """Wait until all processes have ended."""
    for number in processes:
        try:
            descriptor = os.pidfd_open(number)
        except ProcessLookupError:
            continue
        ready, _, _ = select.select([descriptor], [], [], PATIENCE)
        os.close(descriptor)
        assert ready, f"process {number} still runs"


def check_whole(output: Path, bcm: BCM) -> None:
    """Check that the output has all files and no others, with the images of one call."""
    names = [f"generated-{index:05d}.npz" for index in range(SHARDS)]
    assert sorted(os.listdir(output)) == [*names, "job.json"]  # noqa: PTH208 (with hidden files)
    images = np.concatenate([np.load(output / name)["images"] for name in names])
    labels = np.arange(SHARDS * ROWS) % 10
    assert_images_agree(images, bcm.generate(SHARDS * ROWS, schedule=SCHEDULE, labels=labels))


def test_killed_worker_is_replaced(digits_bundle: Path, bcm: BCM, tmp_path: Path):
    output = tmp_path / "out"
    with started(digits_bundle, output) as running:
        os.kill(workers_of(running.pid)[0], signal.SIGKILL)
        assert len(list(output.glob("*.npz"))) < SHARDS, "the job was done before the worker was killed"
        running.send_signal(signal.SIGCONT)
        answer, errors = running.communicate(timeout=PATIENCE)
    assert (running.returncode, answer) == (0, f"{output}\n"), errors
    check_whole(output, bcm)


def test_killed_command_continues_when_it_is_run_again(digits_bundle: Path, bcm: BCM, tmp_path: Path):
    output = tmp_path / "out"
    with started(digits_bundle, output) as running:
        workers = workers_of(running.pid)
        running.kill()
    await_end(workers)
    before = {file.name: file.stat().st_mtime_ns for file in output.glob("*.npz")}
    assert 0 < len(before) < SHARDS
    (output / f".generated-{SHARDS - 1:05d}.npz.partial-elsewhere-1").write_text(
        "a temporary file of another machine"
    )
    with started(digits_bundle, output) as again:
        again.send_signal(signal.SIGCONT)
        answer, errors = again.communicate(timeout=PATIENCE)
    assert (again.returncode, answer) == (0, f"{output}\n"), errors
    assert {name: (output / name).stat().st_mtime_ns for name in before} == before
    check_whole(output, bcm)
