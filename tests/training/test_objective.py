"""The objective of BCM: levels, weights, losses by hand, and which parameters the gradient reaches."""

from __future__ import annotations

import pytest
import torch
from small_runs import new_run, random_data, trained_a_little
from torch import Tensor

from bcm_edge.model.preconditioning import ConsistencyModel, Denoiser
from bcm_edge.training import objective
from bcm_edge.training.networks import new_model
from bcm_edge.training.objective import (
    Draw,
    Objective,
    draw,
    grid,
    interval_probabilities,
    intervals_at,
    pseudo_huber,
)
from bcm_edge.training.trainer import Trainer

pytestmark = [pytest.mark.numerical, pytest.mark.usefixtures("one_thread")]


def bcm_objective(run: Trainer) -> Objective:
    """Return the objective of a run that trains a BCM."""
    assert isinstance(run.objective, Objective)
    return run.objective


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
    upper = ts[1:]  # interval i has the level t = ts[i+1]
    shares = [p[upper < level].sum().item() for level in (0.07, 1.0, 10.0, 40.0)]
    assert shares == pytest.approx([0.209, 0.709, 0.958, 0.995], abs=0.005)


def test_pseudo_huber_by_hand():
    a = torch.zeros(2, 1, 2, 2)
    b = torch.tensor([3.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0]).reshape(2, 1, 2, 2)
    assert pseudo_huber(a, b, c=4.0).tolist() == pytest.approx([(5 - 4) / 2, (20**0.5 - 4) / 2])
    assert pseudo_huber(a, a, c=4.0).tolist() == [0, 0]


def test_curriculum_doubles_in_equal_slices():
    stages = [intervals_at(step, 600, 10, 320) for step in range(600)]
    assert stages[::100] == [10, 20, 40, 80, 160, 320]
    assert stages[99] == 10
    assert stages[599] == 320


def test_curriculum_of_one_stage():
    assert {intervals_at(step, 50, 10, 10) for step in range(50)} == {10}


def test_levels_reach_both_ends_and_differ():
    at = draw(torch.Size([4000, 1, 2, 2]), 40, torch.Generator().manual_seed(0))
    assert at.t.max() == at.u.max() == 80
    assert at.u.min() == pytest.approx(0.002)
    assert at.t_near.min() == pytest.approx(0.002)
    assert (at.t > at.t_near).all()
    assert (at.t != at.u).all()
    assert at.z.std().item() == pytest.approx(1, abs=0.03)


def test_one_level_in_sixteen_is_the_highest():
    at = draw(torch.Size([8000, 1, 1, 1]), 320, torch.Generator().manual_seed(0))
    for level in (at.t, at.u):
        assert (level == 80).float().mean().item() == pytest.approx(1 / 16, abs=0.015)


def test_gradient_reaches_only_the_trained_network():
    """The gradient of the soft loss is that of g(f_θ(x_t, t, u)), with a constant copy g of the network."""
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
    gradients = torch.autograd.grad(soft, run.parameters, allow_unused=True)

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
    for gradient, reference in zip(gradients, expected, strict=True):
        torch.testing.assert_close(gradient, reference, rtol=1e-3, atol=1e-5)


def test_target_carries_no_gradient(monkeypatch: pytest.MonkeyPatch):
    """Only the trained network and the soft loss may have gradients, not the target."""
    dataset = random_data(classes=None)
    run = trained_a_little(dataset)
    n = len(dataset)
    at = Draw(
        torch.full((n,), 1.5), torch.full((n,), 1.2), torch.full((n,), 0.6), torch.ones_like(dataset.images)
    )
    calls: list[tuple[int, bool, list[bool]]] = []
    forward = ConsistencyModel.forward

    def recorded(
        model: ConsistencyModel, x: Tensor, t: Tensor, u: Tensor, label: Tensor | None = None
    ) -> Tensor:
        out = forward(model, x, t, u, label)
        calls.append((len(x), out.requires_grad, [p.requires_grad for p in model.parameters()]))
        return out

    monkeypatch.setattr(ConsistencyModel, "forward", recorded)
    bcm_objective(run)(dataset.images, None, at)
    (target_size, target_grad, _), (trained_size, trained_grad, trained), (soft_size, soft_grad, frozen) = (
        calls
    )
    assert (target_size, trained_size, soft_size) == (12, 18, 6)
    assert (target_grad, trained_grad, soft_grad) == (False, True, True)
    assert all(trained)
    assert not any(frozen)


def test_frozen_network_has_the_weights_of_the_trained_one():
    dataset = random_data()
    run = trained_a_little(dataset)
    for name, parameter in run.model.named_parameters():
        assert torch.equal(bcm_objective(run).frozen[name], parameter)


def test_pseudo_huber_constant_is_proportional_to_the_image_size():
    run = new_run(random_data())
    assert bcm_objective(run).c == pytest.approx(objective.HUBER * 8)


def test_targets_follow_the_flow_of_a_teacher():
    """F = 0 is the ideal denoiser of Gaussian images, whose states are scaled by the flow."""
    dataset = random_data(classes=None)
    run = trained_a_little(dataset)
    n = len(dataset)
    at = Draw(
        torch.full((n,), 1.5), torch.full((n,), 1.45), torch.full((n,), 0.6), torch.ones_like(dataset.images)
    )
    model = run.model
    assert isinstance(model, ConsistencyModel)
    teacher = new_model(Denoiser, run.config, seed=0)
    loss = Objective(model, teacher)(dataset.images, None, at)["consistency"]

    x_t, low = dataset.images + 1.5, torch.full((n,), 0.002)
    x_near = x_t * ((0.25 + 1.45**2) / (0.25 + 1.5**2)) ** 0.5
    c = bcm_objective(run).c
    expected = pseudo_huber(model(x_t, at.t, low), model(x_near, at.t_near, low), c).mean() / 0.05
    without = Objective(model)(dataset.images, None, at)["consistency"]
    assert loss.item() == pytest.approx(expected.item(), rel=1e-3)
    assert abs(loss.item() - without.item()) > 0.01 * expected.item()
