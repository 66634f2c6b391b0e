"""What `bcm-edge train` prints where stderr is no terminal."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from fixture_types import Cli
from processes import child

from bcm_edge.commands.train_progress import TrainProgress
from bcm_edge.training.watch import Progress


class Clock:
    """A clock that is set by hand."""

    now = 100.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


def lines_of(capsys: pytest.CaptureFixture[str], seconds_per_step: float, steps: int) -> list[str]:
    """Return the first words of the lines that a run prints."""
    clock = Clock()
    show = TrainProgress(clock)
    for step in range(1, steps + 1):
        clock.now += seconds_per_step
        show(Progress(step, steps, 10, {"soft": float(step)}, 4000.0))
    return [line.split("  ")[0] for line in capsys.readouterr().err.splitlines()]


def test_slow_steps_are_all_shown(capsys: pytest.CaptureFixture[str]):
    assert lines_of(capsys, 7.0, 3) == ["step 1/3", "step 2/3", "step 3/3"]


def test_progress_is_shown_every_five_seconds_and_later_every_thirty(capsys: pytest.CaptureFixture[str]):
    shown = [int(line[5:].split("/")[0]) for line in lines_of(capsys, 1.0, 150)]
    assert shown == [1, 6, 11, 16, 21, 26, 31, 36, 41, 46, 51, 56, 61, 91, 121, 150]


def test_line_has_mean_losses_and_the_time_left(capsys: pytest.CaptureFixture[str]):
    clock = Clock()
    show = TrainProgress(clock)
    for step, loss, left in ((1, 1.0, None), (2, 2.0, 3847.0), (3, 4.0, 3847.0)):
        show(Progress(step, 3, None, {"denoising": loss}, left))
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "step 1/3  denoising 1.0000",
        "step 3/3  denoising 3.0000  1:04:07 left",
    ]


def test_finer_grid_and_validation_have_their_own_lines(capsys: pytest.CaptureFixture[str]):
    show = TrainProgress(Clock())
    show(Progress(1, 9, 10, {"soft": 1.0}, 60.0))
    show(Progress(2, 9, 20, {"soft": 1.0}, 60.0, {"soft": 0.25}))
    lines = capsys.readouterr().err.splitlines()
    assert lines[1:] == [
        "step 2: the noise grid now has 20 intervals, so losses cannot be compared",
        "step 2: held-out images  soft 0.2500",
    ]


@pytest.mark.slow
def test_a_run_into_a_pipe_first_shows_what_it_will_do(tmp_path: Path):
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "data.npz", images=images, labels=np.arange(40) % 2)
    options = "--steps 4 --batch 4 --channels 8 --intervals 20 --eval-every 2 --samples-every 2"
    execution = "--accumulate 2 --precision bf16 --augment mirror --device cpu"
    command = [sys.executable, "-m", "bcm_edge", "train", "--data", "data.npz", *options.split()]
    command += [*execution.split(), "-o", "m.safetensors"]
    with child(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, cwd=tmp_path) as run:
        _, stderr = run.communicate()
    assert run.returncode == 0, stderr
    lines = stderr.splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("step 1/4"))
    assert [line.split(":")[0] for line in lines[:first]] == [
        "data",
        "classes",
        "held out",
        "network",
        "device",
        "steps",
        "noise grid",
    ]
    assert "4 images for validation; 36 images are trained on" in stderr
    assert "each step in 2 parts" in stderr
    assert any(line.startswith("step 4/4  consistency ") for line in lines)
    assert "step 4: held-out images  consistency " in stderr
    assert {"log.csv", "curve.png", "samples-000002.png"} == {f.name for f in (tmp_path / "m.log").iterdir()}


def test_share_of_held_out_images_needs_validation(cli: Cli):
    result = cli("train", "--data", "digits", "--held-out", "0.2", "-o", "never.safetensors")
    assert result.exit_code == 2
    assert (
        "--held-out has no effect without --eval-every, and all images would be trained on; add"
        in result.stderr
    )
