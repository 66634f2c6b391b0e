"""The objective's numbers, what its gradient reaches, and that a killed run ends where an undisturbed one does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from agreement import weights_apart
from PIL import Image
from processes import child

from bcm_edge.errors import (
    BackendError,
    CheckpointError,
    ImageError,
    InputError,
    LabelError,
    NonFiniteError,
    OutputError,
)
from bcm_edge.model.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from bcm_edge.model.preconditioning import ConsistencyModel
from bcm_edge.training import objective
from bcm_edge.training.data import load_dataset, load_digits
from bcm_edge.training.dataset import Dataset
from bcm_edge.training.networks import network_for, new_model
from bcm_edge.training.objective import (
    Draw,
    Objective,
    draw,
    grid,
    interval_probabilities,
    intervals_at,
    pseudo_huber,
)
from bcm_edge.training.options import TrainOptions
from bcm_edge.training.run import train
from bcm_edge.training.trainer import Trainer

SMALL = TrainOptions(steps=7, batch=4, channels=8, intervals=20)

pytestmark = pytest.mark.numerical


def random_data(n: int = 12, size: int = 8, classes: int | None = 3) -> Dataset:
    rng = torch.Generator().manual_seed(5)
    labels = None if classes is None else torch.arange(n) % classes
    return Dataset("random", torch.rand((n, 1, size, size), generator=rng) * 2 - 1, labels)


def trained_a_little(dataset: Dataset) -> Trainer:
    """Past the first steps, in which the last layers are zero and hide every gradient below them."""
    run = Trainer(dataset, network_for(dataset, 8), SMALL)
    for _ in range(3):
        run.step()
    return run


def bcm_objective(run: Trainer) -> Objective:
    """The objective of a run that trains a BCM and no denoiser."""
    assert isinstance(run.objective, Objective)
    return run.objective


# ---- the objective


def test_grid_of_the_fine_tuning_run():
    ts = grid(320)
    assert len(ts) == 321
    assert (ts[0].item(), ts[320].item()) == (0.002, 80.0)
    assert ts[1].item() == pytest.approx(0.0021603, abs=1e-7)
    assert ts[319].item() == pytest.approx(78.645, abs=1e-3)


def test_interval_probabilities_of_the_fine_tuning_run():
    ts = grid(320)
    p = interval_probabilities(ts)
    assert p.shape == (320,)
    assert p.sum().item() == pytest.approx(1)
    upper = ts[1:]  # i gives t = ts[i+1]
    shares = [p[upper < level].sum().item() for level in (0.07, 1.0, 10.0, 40.0)]
    assert shares == pytest.approx([0.209, 0.709, 0.958, 0.995], abs=0.005)


def test_pseudo_huber_by_hand():
    a, b = torch.zeros(2, 1, 2, 2), torch.tensor([3.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0]).reshape(2, 1, 2, 2)
    assert pseudo_huber(a, b, c=4.0).tolist() == pytest.approx([(5 - 4) / 2, (20**0.5 - 4) / 2])
    assert pseudo_huber(a, a, c=4.0).tolist() == [0, 0]


def test_curriculum_doubles_in_equal_slices():
    stages = [intervals_at(step, 600, 10, 320) for step in range(600)]
    assert stages[::100] == [10, 20, 40, 80, 160, 320]
    assert stages[99] == 10
    assert stages[599] == 320


def test_curriculum_of_one_stage():
    assert {intervals_at(step, 50, 10, 10) for step in range(50)} == {10}


def test_levels_reach_both_ends_and_never_meet():
    at = draw(torch.Size([4000, 1, 2, 2]), 40, torch.Generator().manual_seed(0))
    assert at.t.max() == at.u.max() == 80
    assert at.u.min() == pytest.approx(0.002)
    assert at.t_near.min() == pytest.approx(0.002)
    assert (at.t > at.t_near).all()
    assert (at.t != at.u).all()
    assert at.z.std().item() == pytest.approx(1, abs=0.03)


def test_a_fixed_share_of_levels_is_the_end():
    at = draw(torch.Size([8000, 1, 1, 1]), 320, torch.Generator().manual_seed(0))
    for level in (at.t, at.u):
        assert (level == 80).float().mean().item() == pytest.approx(1 / 16, abs=0.015)


def test_gradient_passes_through_the_frozen_network_to_the_live_one_only():
    """d soft / dθ must be that of g(f_θ(x_t, t, u)) with g a constant copy of the network."""
    dataset = random_data()
    run = trained_a_little(dataset)
    labels = dataset.labels
    assert labels is not None
    n = len(dataset)
    at = Draw(
        torch.full((n,), 1.5), torch.full((n,), 1.2), torch.full((n,), 0.6), torch.ones_like(dataset.images)
    )
    loss = bcm_objective(run)
    soft = loss(dataset.images, labels, at)["soft"]
    got = torch.autograd.grad(soft, run.parameters, allow_unused=True)

    half = n // 2
    constant = run.checkpoint().model()
    constant.load_state_dict(run.model.state_dict())
    constant.requires_grad_(False)
    x, y, low = dataset.images[:half], labels[:half], torch.full((half,), 0.002)
    t, near, u = (level[:half] for level in (at.t, at.t_near, at.u))
    assert isinstance(run.model, ConsistencyModel)
    moved = run.model(x + 1.5 * at.z[:half], t, u, y)
    target = constant(x + 1.2 * at.z[:half], near, low, y)
    expected_loss = (pseudo_huber(constant(moved, u, low, y), target, loss.c) / 0.9).mean()
    expected = torch.autograd.grad(expected_loss, run.parameters, allow_unused=True)

    assert soft.item() == pytest.approx(expected_loss.item(), rel=1e-5)
    assert sum(g.abs().sum().item() for g in expected if g is not None) > 1e-3
    for mine, wanted in zip(got, expected, strict=True):
        torch.testing.assert_close(mine, wanted, rtol=1e-3, atol=1e-5)


def test_target_carries_no_gradient(monkeypatch):
    """With the same point on both sides the consistency loss is flat, unless the target moves along."""
    dataset = random_data(classes=None)
    run = trained_a_little(dataset)
    n = len(dataset)
    at = Draw(
        torch.full((n,), 1.5), torch.full((n,), 1.2), torch.full((n,), 0.6), torch.ones_like(dataset.images)
    )
    calls = []
    forward = ConsistencyModel.forward

    def spying(self, x, t, u, label=None):
        out = forward(self, x, t, u, label)
        calls.append((len(x), out.requires_grad, [p.requires_grad for p in self.parameters()]))
        return out

    monkeypatch.setattr(ConsistencyModel, "forward", spying)
    bcm_objective(run)(dataset.images, None, at)
    (target_size, target_grad, _), (live_size, live_grad, live), (soft_size, soft_grad, frozen) = calls
    assert (target_size, live_size, soft_size) == (12, 18, 6)
    assert (target_grad, live_grad, soft_grad) == (False, True, True)
    assert all(live)
    assert not any(frozen)


def test_frozen_network_follows_the_live_one():
    dataset = random_data()
    run = trained_a_little(dataset)
    for name, parameter in run.model.named_parameters():
        assert torch.equal(bcm_objective(run).frozen[name], parameter)


def test_pseudo_huber_constant_grows_with_the_image():
    run = Trainer(random_data(), network_for(random_data(), 8), SMALL)
    assert bcm_objective(run).c == pytest.approx(objective.HUBER * 8)


# ---- the run


def test_learning_rate_warms_up_and_decays():
    run = Trainer(
        random_data(), network_for(random_data(), 8), TrainOptions(steps=1000, channels=8, learning_rate=1.0)
    )
    rates = []
    for run.done in (0, 49, 99, 500, 750, 999):
        rates.append(run.learning_rate())
    assert rates == pytest.approx([0.01, 0.5, 1.0, 1.0, 0.51, 0.022], abs=0.001)


def test_options_that_cannot_be_used():
    for wrong in (
        {"steps": 0},
        {"channels": 12},
        {"intervals": 5},
        {"learning_rate": float("nan")},
        {"batch": -1},
        {"seed": -1},
    ):
        with pytest.raises(InputError, match=next(iter(wrong))):
            replace(SMALL, **wrong)


def test_divergence_is_an_error_that_names_the_step():
    run = Trainer(random_data(), network_for(random_data(), 8), SMALL)
    with torch.no_grad():
        run.parameters[0].fill_(float("nan"))
    with pytest.raises(NonFiniteError, match="step 0"):
        run.step()


def test_an_unknown_device():
    with pytest.raises(BackendError, match="'abacus'"):
        Trainer(random_data(), network_for(random_data(), 8), SMALL, device="abacus")


@pytest.mark.slow
def test_train_writes_a_checkpoint_and_its_samples(tmp_path):
    seen = []
    np.savez(tmp_path / "data.npz", images=random_data().images.numpy(), labels=np.arange(12) % 3)
    out = tmp_path / "model.safetensors"
    pictures = train(str(tmp_path / "data.npz"), out, SMALL, seen.append)
    checkpoint = load_checkpoint(out)
    assert checkpoint.config.num_classes == 3
    assert checkpoint.provenance["steps"] == 7
    assert Image.open(pictures).size == (10 * 66 + 2, 10 * 66 + 2)
    assert [p.step for p in seen] == [1, 2, 3, 4, 5, 6, 7]
    assert seen[-1].seconds_left == 0
    assert not list(tmp_path.glob("*.state"))


def test_the_checkpoint_of_a_run_is_what_its_file_holds(tmp_path):
    run = trained_a_little(random_data())
    held = run.checkpoint()
    save_checkpoint(tmp_path / "c.safetensors", run.average, run.config, held.schedules, held.provenance)
    read = load_checkpoint(tmp_path / "c.safetensors")
    assert (read.config, read.schedules, read.provenance) == (held.config, held.schedules, held.provenance)
    assert all(torch.equal(read.state_dict[name], tensor) for name, tensor in held.state_dict.items())


def test_train_keeps_an_output_that_exists(tmp_path):
    out = tmp_path / "model.safetensors"
    out.write_text("precious")
    with pytest.raises(OutputError, match="exists"):
        train("digits", out, SMALL)
    assert out.read_text() == "precious"


def test_train_keeps_the_state_of_an_unfinished_run(tmp_path):
    state = tmp_path / "model.safetensors.state"
    state.write_text("precious")
    with pytest.raises(OutputError, match="--resume continues"):
        train("digits", tmp_path / "model.safetensors", SMALL)
    assert state.read_text() == "precious"


VICTIM = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from bcm_edge.training import run
from bcm_edge.training.options import TrainOptions
run.SAVE_EVERY = 5
def on_progress(p):
    print(p.step, flush=True)
    if p.step == 13:
        sys.stdin.read()  # stands still until it is killed
options = TrainOptions(steps=20, batch=4, channels=8, intervals=40)
run.train(sys.argv[1], Path(sys.argv[2]), options, on_progress)
"""


@pytest.fixture(autouse=True)
def one_thread():
    """One thread is faster for work this small."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_weights(tmp_path):
    data, whole, broken = (
        tmp_path / "data.npz",
        tmp_path / "whole.safetensors",
        tmp_path / "broken.safetensors",
    )
    np.savez(data, images=random_data().images.numpy(), labels=np.arange(12) % 3)
    command = [sys.executable, "-c", VICTIM, str(data), str(broken)]
    with child(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as victim:
        assert victim.stdout is not None
        assert "13\n" in iter(victim.stdout.readline, "")
        victim.kill()
        assert victim.wait() == -signal.SIGKILL
    assert not broken.exists()

    options = TrainOptions(steps=20, batch=4, channels=8, intervals=40)
    steps = []
    train(str(data), broken, options, lambda p: steps.append(p.step), resume=True)
    train(str(data), whole, options)
    assert steps == list(range(11, 21))  # the state of step 10 was the last one written
    resumed, undisturbed = load_checkpoint(broken), load_checkpoint(whole)
    assert (resumed.config, resumed.provenance) == (undisturbed.config, undisturbed.provenance)
    # Both are rounded to float16, which turns differences of 1e-6 into 3e-5. With the random numbers of another step,
    # the weights would be 2e-3 apart.
    assert weights_apart(resumed.state_dict.values(), undisturbed.state_dict.values()) < 2e-4


def test_resume_refuses_the_state_of_another_run(tmp_path):
    state = tmp_path / "s"
    Trainer(random_data(), network_for(random_data(), 8), SMALL).save(state)
    other = TrainOptions(steps=8, batch=4, channels=8, intervals=20)
    with pytest.raises(CheckpointError, match="other steps"):
        Trainer(random_data(), network_for(random_data(), 8), other).restore(state)
    with pytest.raises(CheckpointError, match="other data"):
        Trainer(random_data(13), network_for(random_data(), 8), SMALL).restore(state)


def test_a_state_from_before_there_was_a_choice_is_of_a_bcm(tmp_path):
    run = Trainer(random_data(), network_for(random_data(), 8), SMALL)
    run.step()
    del run.fingerprint["objective"]
    run.save(tmp_path / "s")
    again = Trainer(random_data(), network_for(random_data(), 8), SMALL)
    again.restore(tmp_path / "s")
    assert again.done == 1


def test_resume_refuses_a_damaged_state(tmp_path):
    state = tmp_path / "s"
    run = Trainer(random_data(), network_for(random_data(), 8), SMALL)
    run.save(state)
    state.write_bytes(state.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match="--resume"):
        run.restore(state)


def test_the_state_runs_no_code(tmp_path):
    torch.save({"fingerprint": os.system}, tmp_path / "s")
    with pytest.raises(CheckpointError, match="--resume"):
        Trainer(random_data(), network_for(random_data(), 8), SMALL).restore(tmp_path / "s")


# ---- data


def test_digits_are_split_once_and_evenly():
    parts = {name: load_digits(name) for name in ("train", "validation", "test")}
    assert [len(p) for p in parts.values()] == [1257, 180, 360]
    for part in parts.values():
        assert part.labels is not None
        assert part.images.shape[1:] == (1, 8, 8)
        assert (part.images.min(), part.images.max()) == (-1, 1)
        shares = torch.bincount(part.labels).float() / len(part)
        assert shares.min() > 0.09
        assert shares.max() < 0.11
    rows = torch.cat([p.images.flatten(1) for p in parts.values()])
    assert len(rows.unique(dim=0)) == 1797


def test_folder_with_classes(tmp_path):
    for label, name in enumerate(("cat", "dog")):
        (tmp_path / name).mkdir()
        for i in range(2 + label):
            Image.new("RGB", (10, 8), (255 * label, 0, 0)).save(tmp_path / name / f"{i}.png")
    (tmp_path / "notes").mkdir()  # without images: it keeps the number of its class
    data = load_dataset(str(tmp_path))
    assert data.labels is not None
    assert (data.labels.tolist(), data.num_classes) == ([0, 0, 1, 1, 1], 3)
    assert data.images.shape == (5, 3, 8, 8)
    assert data.images[:, 0, 0, 0].tolist() == [-1, -1, 1, 1, 1]
    assert load_dataset(str(tmp_path), image_size=4).images.shape == (5, 3, 4, 4)


def test_folder_without_classes(tmp_path):
    Image.new("L", (8, 8), 255).save(tmp_path / "a.png")
    data = load_dataset(str(tmp_path))
    assert data.labels is None
    assert data.images.shape == (1, 1, 8, 8)
    assert data.num_classes is None


def test_npz_layouts(tmp_path):
    grey = np.array([[[0, 255], [255, 0]]], np.uint8)
    cases = {"grey": grey, "channel": grey[..., None], "float": grey[:, None].astype(np.float64) / 127.5 - 1}
    for name, images in cases.items():
        np.savez(tmp_path / f"{name}.npz", images=images)
        assert load_dataset(str(tmp_path / f"{name}.npz")).images.tolist() == [[[[-1, 1], [1, -1]]]]


@pytest.mark.parametrize(
    ("arrays", "error", "message"),
    [
        ({"pictures": np.zeros((2, 4, 4), np.uint8)}, ImageError, "no array `images`"),
        ({"images": np.zeros((0, 4, 4), np.uint8)}, ImageError, "shape"),
        ({"images": np.zeros((2, 4, 6), np.uint8)}, ImageError, "square"),
        ({"images": np.full((2, 1, 4, 4), 3.0)}, ImageError, r"\[-1, 1\]"),
        ({"images": np.full((2, 1, 4, 4), np.nan)}, ImageError, "NaN"),
        ({"images": np.zeros((2, 4, 4), np.uint8), "labels": np.zeros(3, np.int64)}, LabelError, "2 images"),
        ({"images": np.zeros((2, 4, 4), np.uint8), "labels": np.zeros(2)}, LabelError, "integers"),
        ({"images": np.zeros((2, 4, 4), np.uint8), "labels": np.array([0, -1])}, LabelError, "-1"),
        ({"images": np.zeros((2, 4, 4), np.uint8), "labels": np.array([0, 10**9])}, LabelError, "1000000000"),
        ({"images": np.array([{}, {}])}, ImageError, "npz"),
    ],
)
def test_npz_that_cannot_be_used(tmp_path, arrays, error, message):
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(error, match=message) as caught:
        load_dataset(str(tmp_path / "x.npz"))
    assert "\n" not in str(caught.value)
    assert "x.npz" in str(caught.value)


def test_folders_that_cannot_be_used(tmp_path):
    with pytest.raises(ImageError, match="no images"):
        load_dataset(str(tmp_path))
    (tmp_path / "b.png").write_text("not a picture")
    with pytest.raises(ImageError, match=r"b\.png"):
        load_dataset(str(tmp_path))
    (tmp_path / "class").mkdir()
    Image.new("L", (8, 8)).save(tmp_path / "class" / "a.png")
    with pytest.raises(LabelError, match=r"b\.png"):
        load_dataset(str(tmp_path))


def test_data_that_is_not_there(tmp_path):
    with pytest.raises(ImageError, match="digits"):
        load_dataset("diggits")
    with pytest.raises(ImageError, match=r"gone\.npz"):
        load_dataset(str(tmp_path / "gone.npz"))
    with pytest.raises(ImageError, match="8 pixels wide, not 16"):
        load_dataset("digits", image_size=16)


def test_network_fits_the_images():
    networks = {size: network_for(random_data(size=size), 16) for size in (8, 27, 28, 32, 7)}
    shapes = {size: (config.patch_size, config.channel_mult) for size, config in networks.items()}
    assert shapes == {8: (1, (1, 2)), 27: (1, (1,)), 28: (2, (1, 2)), 32: (2, (1, 2, 2)), 7: (1, (1,))}
    model = new_model(ConsistencyModel, networks[8], 0)
    assert model(torch.ones(1, 1, 8, 8), *torch.ones(2, 1), torch.tensor([0])).shape == (1, 1, 8, 8)


def test_fine_tuning_starts_from_the_given_weights_on_the_finest_grid(tmp_path: Path):
    dataset = random_data()
    config = network_for(dataset, 8)
    weights = Trainer(dataset, config, TrainOptions(steps=4, channels=8, seed=5)).model.network.state_dict()
    run = Trainer(dataset, config, SMALL, init=Checkpoint("start", config, weights))
    assert run.intervals() == SMALL.intervals
    assert all(torch.equal(p, weights[name]) for name, p in run.model.network.state_dict().items())


def test_data_that_the_network_cannot_take_is_refused(tmp_path: Path):
    config = network_for(random_data(), 8)
    wide = Checkpoint("wide", replace(config, num_classes=1), {})
    with pytest.raises(LabelError, match="has labels 0 to 9; the model has classes 0 to 0"):
        train("digits", tmp_path / "out.safetensors", SMALL, init=wide)
    without = Checkpoint("without", replace(config, num_classes=None), {})
    with pytest.raises(InputError, match="it has 10 classes, the network has none"):
        train("digits", tmp_path / "out.safetensors", SMALL, init=without)
    colour = Checkpoint("colour", replace(config, in_channels=3, out_channels=3, num_classes=10), {})
    with pytest.raises(InputError, match="its images are 1×8×8, the network takes 3×8×8"):
        train("digits", tmp_path / "out.safetensors", SMALL, init=colour)
