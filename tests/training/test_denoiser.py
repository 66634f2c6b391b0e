"""EDM's denoiser: its loss by hand, its training, and its checkpoints."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from agreement import ROUNDING, relative_l2, weights_apart
from checkpoints import same_tensors
from denoisers import BASELINE, tiny_denoiser
from fixture_types import Cli
from networks import TINY, random_model, tiny_checkpoint
from PIL import Image
from refusals import refusal
from small_runs import EDM, new_run, two_shapes
from torch import Tensor

from bcm_edge.errors import CheckpointError, InputError
from bcm_edge.export.exporter import ExportPlan
from bcm_edge.model.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from bcm_edge.model.preconditioning import Denoiser
from bcm_edge.training.denoising import Denoising, Noising, noised
from bcm_edge.training.networks import network_for
from bcm_edge.training.options import TrainOptions
from bcm_edge.training.run import train
from bcm_edge.training.trainer import Trainer
from bcm_edge.training.watch import Progress

pytestmark = [pytest.mark.numerical, pytest.mark.usefixtures("one_thread")]


def test_denoiser_has_the_preconditioning_of_edm():
    model, t, labels = tiny_denoiser(), torch.tensor([0.5, 80.0]), torch.tensor([1, 3])
    noisy = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    denoised = model(noisy, t, labels)
    coefficients = [  # c_skip, c_out and c_in at the levels 0.5 and 80
        (0.5, 0.5 / math.sqrt(2), math.sqrt(2)),
        (0.25 / 6400.25, 40 / math.sqrt(6400.25), 1 / math.sqrt(6400.25)),
    ]
    for i, (c_skip, c_out, c_in) in enumerate(coefficients):
        x, label = noisy[i : i + 1], labels[i : i + 1]
        tau = 250 * torch.tensor([t[i], 0.002]).log()
        raw = model.network(c_in * x, tau[:1], tau[1:], label)
        torch.testing.assert_close(denoised[i : i + 1], c_skip * x + c_out * raw, rtol=1e-4, atol=1e-5)


def test_loss_by_hand():
    class Zero(Denoiser):
        def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
            torch.testing.assert_close(x, constants(1.5, 1.0 + 2 * 3))
            return torch.zeros_like(x)

    at = Noising(torch.tensor([0.5, 2.0]), constants(1.0, 3.0))
    loss = Denoising(Zero(TINY))(constants(1.0, 1.0), None, at)
    assert list(loss) == ["denoising"]
    # The weights are λ(0.5) = 0.5 / 0.0625 and λ(2) = 4.25 / 1.
    assert loss["denoising"].item() == pytest.approx((8 + 4.25) / 2)


def constants(*values: float) -> Tensor:
    """Return one image of a constant value for each value."""
    return torch.stack([torch.full((3, 16, 16), value) for value in values])


def test_perfect_denoiser_has_no_loss():
    images = torch.rand(4, 3, 16, 16)

    class Perfect(Denoiser):
        def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
            return images

    at = noised(images.shape, torch.Generator())
    assert Denoising(Perfect(TINY))(images, None, at)["denoising"].item() == 0


def test_levels_are_lognormal_and_clipped():
    at = noised(torch.Size([200_000, 1, 1, 1]), torch.Generator().manual_seed(0))
    log_t = at.t.log()
    assert (log_t.mean().item(), log_t.std().item()) == pytest.approx((-1.2, 1.2), abs=0.02)
    assert at.t.min() >= torch.tensor(0.002)
    assert at.t.max() <= 80
    assert at.z.std().item() == pytest.approx(1, abs=0.01)
    again = noised(torch.Size([200_000, 1, 1, 1]), torch.Generator().manual_seed(0))
    assert torch.equal(at.t, again.t)
    assert torch.equal(at.z, again.z)


def test_extreme_levels_are_clipped(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch, "randn", lambda *shape, generator: torch.tensor([-9.0, 9.0]))
    assert noised(torch.Size([2, 1, 1, 1]), torch.Generator()).t.tolist() == pytest.approx([0.002, 80])


@pytest.mark.slow
def test_training_reduces_the_loss():
    options = TrainOptions(steps=60, batch=12, channels=8, learning_rate=1e-2, objective="edm")
    run = new_run(two_shapes(), options)
    losses = [run.step()["denoising"] for _ in range(60)]
    assert np.mean(losses[-10:]) < 0.5 * np.mean(losses[:10])


def test_training_resumes_to_the_same_weights(tmp_path: Path):
    data = two_shapes()
    whole, first = (new_run(data, EDM) for _ in range(2))
    for _ in range(4):
        first.step()
    first.save(tmp_path / "s")
    second = new_run(data, EDM)
    second.restore(tmp_path / "s")
    assert same_tensors(second.average, first.average)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters, second.parameters, strict=True))
    losses = [whole.step()["denoising"] for _ in range(7)]
    assert [second.step()["denoising"] for _ in range(3)] == pytest.approx(losses[4:], rel=1e-5)
    # Rounding changes the weights by 1e-7. Without the moments of the optimizer they would differ by 5e-4.
    assert weights_apart(second.average.values(), whole.average.values()) < 3e-5
    ends = [run.model.network.state_dict().values() for run in (second, whole)]
    assert weights_apart(*ends) < 3e-5


def test_resume_refuses_the_state_of_another_objective(tmp_path: Path):
    data = two_shapes()
    new_run(data, EDM).save(tmp_path / "s")
    bcm = new_run(data, TrainOptions(steps=7, batch=4, channels=8))
    with pytest.raises(CheckpointError, match=r"differs from this one in objective \(edm, now bcm\)"):
        bcm.restore(tmp_path / "s")


@pytest.mark.slow
def test_train_writes_a_denoiser_and_its_samples(tmp_path: Path):
    data, output = tmp_path / "data.npz", tmp_path / "base.safetensors"
    np.savez(data, images=two_shapes().images.numpy(), labels=np.arange(12) % 2)
    reports: list[Progress] = []
    pictures = train(str(data), output, EDM, reports.append)
    checkpoint = load_checkpoint(output)
    assert checkpoint.objective == checkpoint.provenance["objective"] == "edm"
    assert checkpoint.schedules == {}
    assert "intervals" not in checkpoint.provenance
    assert min(Image.open(pictures).size) > 10 * 128
    assert [(report.intervals, list(report.losses)) for report in reports] == [(None, ["denoising"])] * 7
    weights = Trainer(two_shapes(), checkpoint.config, EDM, init=checkpoint).model.network.state_dict()
    assert same_tensors(weights, checkpoint.state_dict)


def test_unknown_objective_is_refused():
    with pytest.raises(InputError, match="objective must be one of bcm, edm, not 'gan'"):
        TrainOptions(objective="gan")


def test_checkpoint_gives_only_the_network_of_its_objective():
    denoiser = tiny_checkpoint(provenance=BASELINE).denoiser()
    assert isinstance(denoiser, Denoiser)
    read, written = (model.network.get_parameter("out.2.weight") for model in (denoiser, random_model()))
    assert torch.equal(read, written)
    assert not denoiser.training
    with pytest.raises(CheckpointError, match=r"tiny\.pt is not a BCM.*--baseline tiny\.pt"):
        tiny_checkpoint(provenance=BASELINE).model()
    for provenance in ({}, {"objective": "bcm"}):
        bcm = tiny_checkpoint(provenance=provenance)
        assert bcm.objective == "bcm"
        assert bcm.model().config == TINY
        with pytest.raises(CheckpointError, match=r"tiny\.pt is not a denoiser.*--objective edm"):
            bcm.denoiser()


def test_export_refuses_a_denoiser(tmp_path: Path):
    with pytest.raises(CheckpointError, match=r"not a BCM.*bcm-edge evaluate BUNDLE"):
        ExportPlan(tiny_checkpoint(provenance=BASELINE), tmp_path / "b")


def test_bcm_starts_from_a_denoiser_as_a_step_of_euler_on_the_coarsest_grid():
    data = two_shapes()
    base = new_run(data, EDM)
    for _ in range(3):
        base.step()
    denoiser = base.checkpoint()
    run = Trainer(data, denoiser.config, TrainOptions(steps=7, batch=4, channels=8), init=denoiser)
    assert run.intervals() == 10
    t, u = torch.tensor([1.0, 0.07, 80.0]), torch.tensor([0.002, 80.0, 3.0])
    x, labels = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 0])
    with torch.no_grad():
        slope = (x - denoiser.denoiser()(x, t, labels)) / t[:, None, None, None]
        moved = run.model(x, t, u, labels)
    assert relative_l2(moved, x + (u - t)[:, None, None, None] * slope) < ROUNDING
    run.step()  # the constant embedding of u learns
    assert run.model.network.get_parameter("time_embed_end.2.weight").abs().max() > 0


def test_denoiser_does_not_start_from_a_bcm():
    data = two_shapes()
    config = network_for(data, 8)
    weights = Trainer(data, config, EDM).model.network.state_dict()
    with pytest.raises(CheckpointError, match="not a denoiser"):
        Trainer(data, config, EDM, init=Checkpoint("bcm", config, weights))


@pytest.mark.slow
def test_commands_name_the_next_step_and_refuse_a_denoiser(cli: Cli, tmp_path: Path):
    data, base = tmp_path / "data.npz", tmp_path / "base.safetensors"
    np.savez(data, images=two_shapes().images.numpy(), labels=np.arange(12) % 2)
    small = ("--steps", 2, "--batch", 2, "--channels", 8, "--intervals", 10)
    trained = cli("train", "--data", data, *small, "--objective", "edm", "-o", base)
    assert trained.exit_code == 0, trained.stderr
    *_, distil, evaluate = trained.stderr.splitlines()
    assert "\nstep 2/2  denoising " in trained.stderr
    assert "intervals" not in trained.stderr
    assert distil == f"  bcm-edge train --data {data} --init {base} --teacher {base} -o BCM.safetensors"
    assert evaluate == f"  bcm-edge evaluate BUNDLE --data {data} --baseline {base}"
    assert "is not a BCM" in refusal(cli("export", base, "-o", tmp_path / "b.bundle"))
    bcm = cli("train", "--data", data, *small, "--init", base, "-o", tmp_path / "bcm.safetensors")
    assert "\nnoise grid: 10 intervals in all steps\n" in bcm.stderr
    assert "\nstep 2/2  consistency " in bcm.stderr
    assert "bcm-edge export" in bcm.stderr


def test_denoiser_is_the_same_after_writing_and_reading(tmp_path: Path):
    file, weights = tmp_path / "d.safetensors", random_model().network.state_dict()
    save_checkpoint(file, weights, TINY, {}, BASELINE, torch.float32)
    x, t, label = torch.ones(1, 3, 16, 16), torch.tensor([2.0]), torch.tensor([0])
    read = load_checkpoint(file).denoiser()
    assert same_tensors(read.state_dict(), tiny_denoiser().state_dict())
    assert relative_l2(read(x, t, label), tiny_denoiser()(x, t, label)) < ROUNDING
