"""Resumed training: the same weights as without interruption, and states that are refused."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from agreement import weights_apart
from processes import child
from small_runs import SMALL, new_run, random_data

from bcm_edge.errors import CheckpointError, OutputError
from bcm_edge.model.checkpoint import load_checkpoint
from bcm_edge.training.networks import network_for
from bcm_edge.training.options import TrainOptions
from bcm_edge.training.run import train
from bcm_edge.training.trainer import Trainer

pytestmark = [pytest.mark.numerical, pytest.mark.usefixtures("one_thread")]


# Trains 20 steps, saves a state every 5 steps, and waits at step 13.
VICTIM = """
import sys
from pathlib import Path
from pathlib import Path
import torch
torch.set_num_threads(1)
from bcm_edge.training import run
from bcm_edge.training.options import TrainOptions
run.SAVE_EVERY = 5
def on_progress(report):
    print(report.step, flush=True)
    if report.step == 13:
        sys.stdin.read()  # waits until the process is killed
options = TrainOptions(steps=20, batch=4, channels=8, intervals=40)
run.train(sys.argv[1], Path(sys.argv[2]), options, on_progress)
"""


def test_train_without_resume_keeps_the_state_of_an_unfinished_run(tmp_path: Path):
    state = tmp_path / "model.safetensors.state"
    state.write_text("precious")
    with pytest.raises(OutputError, match="--resume continues"):
        train("digits", tmp_path / "model.safetensors", SMALL)
    assert state.read_text() == "precious"


@pytest.mark.slow
def test_killed_run_resumes_to_the_same_weights(tmp_path: Path):
    data = tmp_path / "data.npz"
    whole, broken = tmp_path / "whole.safetensors", tmp_path / "broken.safetensors"
    np.savez(data, images=random_data().images.numpy(), labels=np.arange(12) % 3)
    command = [sys.executable, "-c", VICTIM, str(data), str(broken)]
    with child(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as victim:
        assert victim.stdout is not None
        assert "13\n" in iter(victim.stdout.readline, "")
        victim.kill()
        assert victim.wait() == -signal.SIGKILL
    assert not broken.exists()

    options = TrainOptions(steps=20, batch=4, channels=8, intervals=40)
    steps: list[int] = []
    train(str(data), broken, options, lambda report: steps.append(report.step), resume=True)
    train(str(data), whole, options)
    assert steps == list(range(11, 21))  # the last state that was written is that of step 10
    resumed, undisturbed = load_checkpoint(broken), load_checkpoint(whole)
    assert (resumed.config, resumed.provenance) == (undisturbed.config, undisturbed.provenance)
    # Both are rounded to float16, which turns differences of 1e-6 into 3e-5. With the random numbers of
    # another step, the weights would be 2e-3 apart.
    assert weights_apart(resumed.state_dict.values(), undisturbed.state_dict.values()) < 2e-4


def test_resume_refuses_the_state_of_another_run(tmp_path: Path):
    state = tmp_path / "s"
    new_run(random_data()).save(state)
    other = TrainOptions(steps=8, batch=4, channels=8, intervals=20)
    with pytest.raises(CheckpointError, match="other steps"):
        new_run(random_data(), other).restore(state)
    with pytest.raises(CheckpointError, match="other data"):
        Trainer(random_data(13), network_for(random_data(), 8), SMALL).restore(state)


def test_resume_reads_a_state_without_an_objective_as_that_of_a_bcm(tmp_path: Path):
    run = new_run(random_data())
    run.step()
    del run.fingerprint["objective"]
    run.save(tmp_path / "s")
    again = new_run(random_data())
    again.restore(tmp_path / "s")
    assert again.done == 1


def test_resume_refuses_a_damaged_state(tmp_path: Path):
    state = tmp_path / "s"
    run = new_run(random_data())
    run.save(state)
    state.write_bytes(state.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match="--resume"):
        run.restore(state)


def test_resume_executes_no_pickle(tmp_path: Path):
    torch.save({"fingerprint": os.system}, tmp_path / "s")
    with pytest.raises(CheckpointError, match="--resume"):
        new_run(random_data()).restore(tmp_path / "s")
