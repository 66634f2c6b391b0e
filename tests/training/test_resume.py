"""Resumed and extended training: the same weights as without interruption, and states that are refused."""

from __future__ import annotations

import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from agreement import weights_apart
from processes import child
from small_runs import SMALL, new_run, random_data

from bcm_edge.errors import CheckpointError, OutputError
from bcm_edge.model.checkpoint import load_checkpoint
from bcm_edge.training import run as run_module
from bcm_edge.training.networks import network_for
from bcm_edge.training.options import TrainOptions
from bcm_edge.training.run import fit, train
from bcm_edge.training.state import read_header
from bcm_edge.training.trainer import Trainer
from bcm_edge.training.watch import Progress

pytestmark = [pytest.mark.numerical, pytest.mark.usefixtures("one_thread")]

LONG = TrainOptions(steps=40, batch=4, channels=8, intervals=40)
# Rounding makes weights 1e-7 apart, 3e-5 after rounding to float16. With the random numbers of another step,
# they are 2e-3 apart.
SAME = 2e-4

# Trains, saves a state every 5 steps, prints the steps, and waits at a step until it is killed.
VICTIM = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from bcm_edge.training import run
from bcm_edge.training.options import TrainOptions
run.SAVE_EVERY = 5
data, output, last = sys.argv[1:]
def on_progress(progress):
    print(progress.step, flush=True)
    if progress.step == int(last):
        sys.stdin.read()
options = TrainOptions(steps=40, batch=4, channels=8, intervals=40)
run.train(data, Path(output), options, on_progress, resume=True)
"""


class Killed(BaseException):
    """Ends a run at any place, like SIGKILL."""


@pytest.fixture(autouse=True)
def frequent_states(monkeypatch: pytest.MonkeyPatch) -> None:
    """States are saved every 5 steps."""
    monkeypatch.setattr(run_module, "SAVE_EVERY", 5)


def data_file(folder: Path) -> Path:
    """Write the random images with labels. Return the file."""
    path = folder / "data.npz"
    np.savez(path, images=random_data().images.numpy(), labels=np.arange(12) % 3)
    return path


def until(last: int, steps: list[int]):
    """Return a callback that records the steps, and raises Killed after the step `last`."""

    def on_progress(progress: Progress) -> None:
        steps.append(progress.step)
        if progress.step == last:
            raise Killed

    return on_progress


@pytest.mark.slow
def test_run_killed_at_ten_random_points_gives_the_same_weights(tmp_path: Path):
    data = random_data()
    config = network_for(data, 8)
    state = tmp_path / "state"
    points = np.sort(np.random.default_rng(18).integers(1, 40, 10)).tolist()
    done = 0  # the steps of the state that was saved last
    for last in points:
        steps: list[int] = []
        with pytest.raises(Killed):
            fit(data, config, LONG, state, until(last, steps), resume=True)
        assert steps == list(range(done + 1, last + 1))
        done = last // 5 * 5
    resumed = fit(data, config, LONG, state, resume=True)
    undisturbed = fit(data, config, LONG, tmp_path / "whole")
    assert resumed.done == undisturbed.done == 40
    assert weights_apart(resumed.average.values(), undisturbed.average.values()) < SAME / 10


def test_state_is_saved_after_a_time_if_steps_are_slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(run_module, "SAVE_SECONDS", 0.0)
    with pytest.raises(Killed):
        train("digits", tmp_path / "m.safetensors", SMALL, until(3, []))
    assert read_header(tmp_path / "m.safetensors.state").done == 3


@pytest.mark.slow
def test_killed_process_resumes_to_the_same_file(tmp_path: Path):
    data = data_file(tmp_path)
    whole, broken = tmp_path / "whole.safetensors", tmp_path / "broken.safetensors"
    for last in (13, 29):
        command = [sys.executable, "-c", VICTIM, str(data), str(broken), str(last)]
        with child(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as victim:
            assert victim.stdout is not None
            assert f"{last}\n" in iter(victim.stdout.readline, "")
            victim.kill()
            assert victim.wait() == -signal.SIGKILL
        assert not broken.exists()
    steps: list[int] = []
    train(str(data), broken, LONG, lambda progress: steps.append(progress.step), resume=True)
    train(str(data), whole, LONG)
    assert steps == list(range(26, 41))  # the last state that was written is that of step 25
    resumed, undisturbed = load_checkpoint(broken), load_checkpoint(whole)
    assert (resumed.config, resumed.provenance) == (undisturbed.config, undisturbed.provenance)
    assert weights_apart(resumed.state_dict.values(), undisturbed.state_dict.values()) < SAME


def test_kill_while_a_state_is_written_keeps_the_previous_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def killed_in_the_middle(tensors: object, path: Path, metadata: object) -> None:
        path.write_bytes(b"half a state")
        raise Killed

    run, state = new_run(random_data()), tmp_path / "s"
    run.step()
    run.save(state)
    run.step()
    monkeypatch.setattr("bcm_edge.training.state.save_file", killed_in_the_middle)
    with pytest.raises(Killed):
        run.save(state)
    again = new_run(random_data())
    again.restore(state)
    assert again.done == 1


@pytest.mark.slow
def test_finished_run_is_extended(tmp_path: Path):
    data, output = str(data_file(tmp_path)), tmp_path / "model.safetensors"
    train(data, output, SMALL)
    assert sorted(path.name for path in tmp_path.glob("model*")) == [
        "model.png",
        "model.safetensors",
        "model.safetensors.state",
    ]
    steps: list[int] = []
    lines: list[str] = []
    longer = replace(SMALL, steps=9)
    train(
        data,
        output,
        longer,
        lambda progress: steps.append(progress.step),
        report=lines.append,
        resume=True,
        discard_state=True,
    )
    assert steps == [8, 9]
    assert lines[0] == (
        "resumed: 7 of 7 steps are done; the learning rate and the noise grid now follow 9 steps"
    )
    provenance = load_checkpoint(output).provenance
    assert provenance["steps"] == 9
    assert provenance["extended"] == [{"after": 7, "steps": 7}]
    assert not list(tmp_path.glob("*.state"))
    with pytest.raises(OutputError, match=r"exists without its state.*--init.*--force"):
        train(data, output, longer, resume=True)


def test_extended_run_follows_the_schedules_of_its_new_length(tmp_path: Path):
    options = TrainOptions(steps=200, batch=4, channels=8, intervals=40, learning_rate=1.0)
    run = new_run(random_data(), options)
    run.done = 200
    run.save(tmp_path / "s")
    longer = new_run(random_data(), replace(options, steps=400))
    longer.restore(tmp_path / "s")
    assert (longer.done, longer.intervals()) == (200, 20)
    assert longer.learning_rate() == 1
    assert longer.extended == [{"after": 200, "steps": 200}]


def test_resuming_a_finished_run_writes_its_files_again(tmp_path: Path):
    data, output = str(data_file(tmp_path)), tmp_path / "model.safetensors"
    first = train(data, output, SMALL)
    output.unlink()
    lines: list[str] = []
    assert train(data, output, SMALL, report=lines.append, resume=True) == first
    assert lines[0] == "resumed: 7 of 7 steps are done; more --steps would extend the run"
    assert load_checkpoint(output).provenance["steps"] == 7
    lines.clear()
    with pytest.raises(CheckpointError, match=r"has done 7 steps; --steps must be at least that, not 5"):
        train(data, output, replace(SMALL, steps=5), report=lines.append, resume=True)
    assert not lines


def test_train_without_resume_keeps_the_state_of_a_run(tmp_path: Path):
    output = tmp_path / "model.safetensors"
    state = tmp_path / "model.safetensors.state"
    run = new_run(random_data())
    run.step()
    run.save(state)
    content = state.read_bytes()
    with pytest.raises(OutputError, match=r"a run with 1 of 7 steps; --resume continues it.*--force"):
        train("digits", output, SMALL)
    assert state.read_bytes() == content
    state.write_text("precious")
    with pytest.raises(OutputError, match=r"is the state of a run; --resume"):
        train("digits", output, SMALL)
    assert state.read_text() == "precious"


def test_resume_refuses_the_state_of_another_run(tmp_path: Path):
    state = tmp_path / "s"
    run = new_run(random_data())
    run.done = 5
    run.save(state)
    other = TrainOptions(steps=7, batch=5, channels=8, intervals=20)
    with pytest.raises(CheckpointError, match=r"differs from this one in batch \(4, now 5\); continue it"):
        new_run(random_data(), other).restore(state)
    with pytest.raises(CheckpointError, match="differs from this one in the images or labels;"):
        Trainer(random_data(13), network_for(random_data(), 8), SMALL).restore(state)
    with pytest.raises(CheckpointError, match="has done 5 steps; --steps must be at least that, not 4"):
        new_run(random_data(), replace(SMALL, steps=4)).restore(state)
