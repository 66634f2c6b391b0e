"""Ctrl-C and SIGTERM in a training run: the exact step is saved, and the command that goes on is printed."""

from __future__ import annotations

import json
import shlex
import signal
from pathlib import Path

import numpy as np
import pytest
from agreement import weights_apart
from fixture_types import Cli
from small_runs import SMALL, new_run, random_data

from bcm_edge.errors import Interrupted
from bcm_edge.model.checkpoint import load_checkpoint
from bcm_edge.training import run as run_module
from bcm_edge.training.networks import network_for
from bcm_edge.training.run import fit, train
from bcm_edge.training.state import read_header
from bcm_edge.training.trainer import Trainer
from bcm_edge.training.watch import Progress

pytestmark = [pytest.mark.numerical, pytest.mark.usefixtures("one_thread")]


@pytest.fixture(autouse=True)
def usual_handlers():
    """Ctrl-C is not ignored, unlike in background jobs of a shell. The handlers are the same afterwards."""
    inherited = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    signal.signal(signal.SIGINT, inherited)


def raising(number: int, times: int = 1):
    """Return a callback that sends the signal to this process after step 3."""

    def on_progress(progress: Progress) -> None:
        if progress.step == 3:
            for _ in range(times):
                signal.raise_signal(number)

    return on_progress


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal_saves_the_exact_step(tmp_path: Path, number: int, exit_code: int):
    data, state = random_data(), tmp_path / "s"
    config = network_for(data, 8)
    with pytest.raises(Interrupted, match=r"^stopped after step 4 of 7$") as caught:
        fit(data, config, SMALL, state, raising(number))
    assert (caught.value.signal, caught.value.exit_code) == (number, exit_code)
    assert read_header(state).done == 4
    steps: list[int] = []
    resumed = fit(data, config, SMALL, state, lambda progress: steps.append(progress.step), resume=True)
    assert steps == [5, 6, 7]
    whole = new_run(data)
    for _ in range(7):
        whole.step()
    assert weights_apart(resumed.average.values(), whole.average.values()) < 3e-5


def test_second_ctrl_c_stops_at_once(tmp_path: Path):
    data = random_data()
    with pytest.raises(Interrupted, match=r"^stopped at once; the state of step 0 is saved$") as caught:
        fit(data, network_for(data, 8), SMALL, tmp_path / "s", raising(signal.SIGINT, times=2))
    assert caught.value.exit_code == 130
    assert read_header(tmp_path / "s").done == 0


def test_ignored_signal_stays_ignored(tmp_path: Path):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        data = random_data()
        assert fit(data, network_for(data, 8), SMALL, tmp_path / "s", raising(signal.SIGINT)).done == 7
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def test_ctrl_c_before_the_checkpoint_keeps_the_last_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    np.savez(tmp_path / "data.npz", images=random_data().images.numpy(), labels=np.arange(12) % 3)
    data, output = str(tmp_path / "data.npz"), tmp_path / "model.safetensors"
    monkeypatch.setattr(run_module, "save_checkpoint", interrupted)
    with pytest.raises(Interrupted, match="all steps are done, but not the checkpoint"):
        train(data, output, SMALL)
    assert read_header(tmp_path / "model.safetensors.state").done == 7


def test_command_prints_the_line_that_goes_on(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    step = Trainer.step

    def interrupted_step(trainer: Trainer) -> dict[str, float]:
        if trainer.done == 1 and not any("--resume" in text for text in arguments):
            signal.raise_signal(signal.SIGTERM)
        return step(trainer)

    monkeypatch.setattr(Trainer, "step", interrupted_step)
    folder = tmp_path / "a folder"
    folder.mkdir()
    np.savez(folder / "data.npz", images=random_data().images.numpy(), labels=np.arange(12) % 3)
    small = ["--steps", "3", "--batch", "2", "--channels", "8", "--intervals", "10"]
    output = folder / "m.safetensors"
    arguments = ["train", "--data", str(folder / "data.npz"), *small, "-o", str(output), "--json"]
    stopped = cli(*arguments)
    assert stopped.exit_code == 143
    *_, first, second = stopped.stderr.splitlines()
    assert first == "stopped after step 2 of 3; to go on:"
    assert not output.exists()
    assert json.loads(stopped.stdout)["error"]["kind"] == "Interrupted"
    program, *arguments = shlex.split(second)
    assert (program, arguments[-1]) == ("bcm-edge", "--resume")
    resumed = cli(*arguments)
    assert resumed.exit_code == 0, resumed.stderr
    assert resumed.stderr.splitlines()[0] == "resumed: 2 of 3 steps are done"
    assert load_checkpoint(output).provenance["steps"] == 3
