"""Training in two processes on processors: the result of one process, and a common end after a signal."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from agreement import weights_apart
from processes import child
from small_runs import random_data

from bcm_edge.errors import BackendError, InputError, MissingExtraError
from bcm_edge.runtime.checks import doctor
from bcm_edge.training.execution import Execution
from bcm_edge.training.interrupts import first_signal_noted
from bcm_edge.training.options import TrainOptions
from bcm_edge.training.processes import Processes, joined
from bcm_edge.training.run import train
from bcm_edge.training.state import read_header, read_state

OPTIONS = TrainOptions(steps=4, batch=8, channels=8, intervals=20)
LAUNCHER = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Twelve random images of three classes."""
    images = random_data()
    assert images.labels is not None
    np.savez(tmp_path / "data.npz", images=images.images.numpy(), labels=images.labels.numpy())
    return tmp_path / "data.npz"


@contextmanager
def two_processes(data: Path, output: Path, steps: int, *arguments: str) -> Iterator[Any]:
    """Run `train` with OPTIONS in two processes. Yields their launcher, which forwards their messages."""
    options = ["--steps", str(steps), "--batch", "8", "--channels", "8", "--intervals", "20"]
    files = ["--data", str(data), "-o", str(output), "--samples-every", "0"]
    command = [*LAUNCHER, "-m", "bcm_edge", "train", *files, *options, "--device", "cpu", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with child(command, stdout=-1, stderr=-1, env=environment) as launcher:
        yield launcher


def moments(state: Path) -> list[Any]:
    """Return Adam's averages of the gradient in a state file."""
    return [tensor for name, tensor in read_state(state)[1].items() if name.startswith("exp_avg/")]


@pytest.mark.slow
@pytest.mark.numerical
@pytest.mark.usefixtures("one_thread")
def test_two_processes_make_the_steps_of_one(data: Path, tmp_path: Path):
    with two_processes(data, tmp_path / "two.safetensors", 4, "--accumulate", "2") as launcher:
        output, messages = launcher.communicate(timeout=300)
    assert launcher.returncode == 0, messages
    assert output == f"{tmp_path / 'two.safetensors'}\n"
    assert messages.count("device: cpu, 1 thread, 2 processes, fp32, each step in 4 parts\n") == 1
    assert (tmp_path / "two.png").exists()
    train(str(data), tmp_path / "one.safetensors", OPTIONS)
    one, two = (tmp_path / f"{name}.safetensors.state" for name in ("one", "two"))
    assert read_header(two) == read_header(one)
    # 0.5 and more if a process computes other images or keeps its own gradient
    assert weights_apart(moments(two), moments(one)) < 1e-3


@pytest.mark.slow
def test_signal_to_one_process_stops_both_after_the_same_step(data: Path, tmp_path: Path):
    output = tmp_path / "model.safetensors"
    with two_processes(data, output, 5000) as launcher:
        next(line for line in launcher.stderr if line.startswith("step "))
        children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
        (second,) = [pid for pid in children if b"\0RANK=1\0" in Path(f"/proc/{pid}/environ").read_bytes()]
        try:
            os.kill(int(second), signal.SIGTERM)
            _, messages = launcher.communicate(timeout=300)
        finally:
            for pid in children:
                with suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
    done = read_header(tmp_path / "model.safetensors.state").done
    assert 0 < done < 5000
    assert f"stopped after step {done} of 5000; to go on:\n  torchrun --standalone" in messages
    assert "error:" not in messages
    assert not output.exists()


def test_repeated_signals_of_a_launcher_are_ignored():
    inherited = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with first_signal_noted(ignore_others=True) as stop:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
        assert stop.signal == signal.SIGINT
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, inherited)


def test_batch_without_equal_parts_for_the_processes_is_refused():
    assert Execution(accumulate=2, processes=Processes(0, 4)).part_of(64) == 8
    with pytest.raises(InputError, match="64 images must have 6 equal parts: 2 for each of 3 processes"):
        Execution(accumulate=2, processes=Processes(0, 3)).part_of(64)


def test_launched_process_asks_for_accelerate(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(os.environ, "LOCAL_RANK", "0")
    monkeypatch.setitem(os.environ, "WORLD_SIZE", "1")
    monkeypatch.setattr(doctor, "missing_packages", lambda extra: ["accelerate"] * (extra == "accelerate"))
    with joined("cpu") as alone:
        assert (alone.main, alone.count) == (True, 1)
    monkeypatch.setitem(os.environ, "WORLD_SIZE", "2")
    with pytest.raises(MissingExtraError, match=r"not installed \(accelerate\); pip install"), joined("cpu"):
        pass


def test_processes_cannot_share_a_gpu(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(os.environ, "LOCAL_RANK", "512")
    monkeypatch.setitem(os.environ, "WORLD_SIZE", "513")
    with pytest.raises(BackendError, match="give --device cuda or auto, not cuda:1"), joined("cuda:1"):
        pass
    with pytest.raises(BackendError, match="process 513 of this machine has no GPU"), joined("cuda"):
        pass
