"""Distillation of a denoiser: a teacher, the run that it belongs to, and teachers that do not fit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fixture_types import Cli
from small_runs import EDM, SMALL, random_data

from bcm_edge.errors import CheckpointError, InputError
from bcm_edge.model.checkpoint import Checkpoint, load_checkpoint
from bcm_edge.training.networks import network_for
from bcm_edge.training.objective import Objective
from bcm_edge.training.trainer import Trainer, objective_of
from bcm_edge.training.validation import validation_losses

pytestmark = [pytest.mark.numerical, pytest.mark.usefixtures("one_thread")]


def denoiser(classes: int | None = 3, channels: int = 8) -> Checkpoint:
    """Return the checkpoint of a denoiser of the random images after a step."""
    data = random_data(classes=classes)
    run = Trainer(data, network_for(data, channels), replace(EDM, channels=channels))
    run.step()
    return run.checkpoint()


def distilled(teacher: Checkpoint) -> Trainer:
    """Return a run that distils a teacher, before its first step."""
    data = random_data()
    return Trainer(data, network_for(data, 8), SMALL, teacher=teacher)


def test_a_teacher_of_another_size_teaches_and_does_not_change():
    teacher = denoiser(channels=16)
    run = distilled(teacher)
    assert isinstance(run.objective, Objective)
    losses = [run.step()["consistency"] for _ in range(3)]
    assert np.isfinite(losses).all()
    network = run.objective.teacher
    assert network is not None
    assert not any(parameter.requires_grad for parameter in network.parameters())
    for name, tensor in network.network.state_dict().items():
        assert (tensor == teacher.state_dict[name]).all(), name


def test_the_teacher_belongs_to_the_run(tmp_path: Path):
    run = distilled(denoiser())
    run.step()
    run.save(tmp_path / "state")
    data = random_data()
    with pytest.raises(CheckpointError, match="differs from this one in the teacher;"):
        Trainer(data, network_for(data, 8), SMALL).restore(tmp_path / "state")
    distilled(denoiser()).restore(tmp_path / "state")


def test_validation_losses_follow_the_teacher():
    held_out, run = random_data(), distilled(denoiser())
    with_teacher = validation_losses(run, held_out)
    run.objective = objective_of(run.model)
    assert validation_losses(run, held_out)["consistency"] != pytest.approx(
        with_teacher["consistency"], rel=1e-3
    )


def test_a_bcm_is_not_a_teacher():
    data = random_data()
    bcm = Trainer(data, network_for(data, 8), SMALL).checkpoint()
    with pytest.raises(CheckpointError, match="not a denoiser"):
        distilled(bcm)


def test_a_teacher_without_classes_is_refused():
    with pytest.raises(InputError, match="3 classes, the network has none"):
        distilled(denoiser(classes=None))


def test_a_teacher_with_classes_in_another_order_is_refused():
    data = replace(random_data(), classes=("a", "b", "c"))
    teacher = replace(denoiser(), classes=("c", "b", "a"))
    with pytest.raises(InputError, match="its classes are c, b, a, in this order"):
        Trainer(data, network_for(data, 8), SMALL, teacher=teacher)


def test_a_denoiser_has_no_teacher():
    data = random_data()
    with pytest.raises(InputError, match="a denoiser has no teacher"):
        Trainer(data, network_for(data, 8), EDM, teacher=denoiser())


def test_command_distils_a_denoiser_of_the_given_levels(cli: Cli, tmp_path: Path):
    rng = np.random.default_rng(0)
    data = tmp_path / "data.npz"
    np.savez(data, images=rng.uniform(-1, 1, (12, 1, 8, 8)).astype(np.float32), labels=np.arange(12) % 3)
    teacher, student = str(tmp_path / "teacher.safetensors"), str(tmp_path / "student.safetensors")
    common = ["train", "--data", str(data), "--steps", "3", "--batch", "4", "--samples-every", "0"]
    network = ["--channels", "8", "--levels", "1"]
    assert cli(*common, "--objective", "edm", *network, "-o", teacher).exit_code == 0
    assert cli(*common, "--init", teacher, "--teacher", teacher, "-o", student).exit_code == 0
    checkpoint = load_checkpoint(Path(student))
    assert checkpoint.config.channel_mult == (1,)
    assert checkpoint.provenance["channels"] == 8
    assert checkpoint.provenance["teacher"] == checkpoint.provenance["init"]
    refused = cli(*common, "--levels", "9", "-o", str(tmp_path / "other.safetensors"))
    assert refused.exit_code != 0
    assert "cannot be halved 8 times" in refused.output
