"""The baselines: EDM's denoiser, its objective and training, and the samplers, on data whose denoiser is known.

For data N(0, s²) per pixel the best denoiser is D(x, t) = x s² / (s² + t²), and the probability-flow ODE takes x from level t to u as
x √((s² + u²) / (s² + t²)). Literal levels were computed by separate arithmetic, in logarithms.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from agreement import ROUNDING, assert_images_agree, relative_l2, weights_apart
from fixture_types import Cli
from networks import TINY, random_model, tiny_checkpoint
from PIL import Image
from refusals import refusal

from bcm_edge.errors import CheckpointError, InputError, NonFiniteError
from bcm_edge.export.exporter import ExportPlan
from bcm_edge.model.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from bcm_edge.model.preconditioning import Denoiser
from bcm_edge.model.samplers import Solver, ddim, ddim_levels, ddpm_sigmas, heun, heun_levels
from bcm_edge.runtime.backends.null import NullBackend
from bcm_edge.runtime.chain import start_state
from bcm_edge.runtime.schedule import parse_schedule
from bcm_edge.training.dataset import Dataset
from bcm_edge.training.denoising import Denoising, Noising, noised
from bcm_edge.training.networks import network_for
from bcm_edge.training.options import TrainOptions
from bcm_edge.training.run import train
from bcm_edge.training.trainer import Trainer

S = 0.5
EDM = TrainOptions(steps=7, batch=4, channels=8, objective="edm")
BASELINE = {"objective": "edm"}

pytestmark = pytest.mark.numerical


@pytest.fixture(autouse=True)
def one_thread():
    """One thread is faster for work this small."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def gaussian(x: torch.Tensor, t: float) -> torch.Tensor:
    return x * (S * S / (S * S + t * t))


def exact(t: float, u: float) -> float:
    return math.sqrt((S * S + u * u) / (S * S + t * t))


def tiny_denoiser() -> Denoiser:
    model = Denoiser(TINY)
    model.load_state_dict(random_model().state_dict())
    return model.eval().requires_grad_(False)


class GaussianDenoiser(Denoiser):
    """The known denoiser with the face of a network."""

    def forward(self, x, t, label=None):
        assert x.dtype == t.dtype == torch.float32
        return x * (S * S / (S * S + t * t))[:, None, None, None]


def two_shapes(n: int = 12) -> Dataset:
    """Left or right half white, with their classes: easy to learn."""
    images = torch.full((n, 1, 8, 8), -1.0)
    labels = torch.arange(n) % 2
    for image, label in zip(images, labels, strict=True):
        image[0, :, 4 * label : 4 * label + 4] = 1
    return Dataset("shapes", images, labels)


# ---- levels


def test_levels_of_heun():
    assert heun_levels(5) == pytest.approx(
        [80, 17.52783196464411, 2.515218976147159, 0.16975275626876413, 0.002, 0], rel=1e-12
    )
    levels = heun_levels(18)
    assert (len(levels), levels[0], levels[-2], levels[-1]) == (19, 80, 0.002, 0)


def test_noise_of_the_linear_schedule():
    sigmas = ddpm_sigmas()
    assert len(sigmas) == 1000
    wanted = {
        1: 0.010000500037503125,
        10: 0.04357054370523511,
        500: 3.424136619044041,
        1000: 157.4072808104075,
    }
    assert [sigmas[n - 1] for n in wanted] == pytest.approx(list(wanted.values()), rel=1e-9)


def test_levels_of_ddim():
    assert ddim_levels(1).tolist() == [80, 0]
    assert ddim_levels(4) == pytest.approx(
        [80, 11.771016274043387, 2.836572188692807, 0.8642423383922206, 0], rel=1e-9
    )
    everything = ddim_levels(930)
    assert everything[1] < 79.6
    assert (np.diff(everything) < 0).all()
    assert everything[-2] == pytest.approx(0.0100005)


@pytest.mark.parametrize(
    ("name", "steps", "message"),
    [
        ("euler", 3, "heun or ddim, not 'euler'"),
        ("heun", 1, "at least 2"),
        ("ddim", 0, "at least 1"),
        ("ddim", 931, "takes at most 930 steps, the levels up to 80"),
    ],
)
def test_solvers_that_do_not_exist(name: str, steps: int, message: str):
    with pytest.raises(InputError, match=message):
        Solver(name, steps)


# ---- samplers


CALLS = [
    (Solver("heun", 18), (35, 34)),
    (Solver("heun", 2), (3, 2)),
    (Solver("ddim", 10), (10, 10)),
    (Solver("ddim", 1), (1, 1)),
]


@pytest.mark.parametrize(("solver", "calls"), CALLS)
def test_network_calls_are_those_that_happen(solver: Solver, calls: tuple[int, int]):
    asked: list[float] = []

    def watched(x: torch.Tensor, t: float) -> torch.Tensor:
        asked.append(t)
        return gaussian(x, t)

    assert (solver.nfe, solver.inversion_nfe) == calls
    for play, expected in zip((solver.descend, solver.ascend), calls, strict=True):
        asked.clear()
        assert play(watched, torch.ones(2))[1] == len(asked) == expected
        assert all(0.002 <= t <= 80 for t in asked)


def test_where_slopes_are_taken():
    """A denoiser that returns 0 gives the slope x / t, so every step is a product."""
    asked: list[float] = []

    def nothing(x: torch.Tensor, t: float) -> torch.Tensor:
        asked.append(t)
        return torch.zeros_like(x)

    one = torch.ones(1, dtype=torch.float64)
    assert ddim(nothing, one, [0, 1, 3])[0].item() == pytest.approx(2 * 3)  # 1 + 1·1/1, then 2 + 2·2/1
    assert asked == [1, 1]
    assert heun(nothing, one, [4, 2, 0])[0].item() == 0
    assert asked[2:] == [4, 2, 2]
    constant = lambda x, t: torch.ones_like(x)  # noqa: E731 (a denoiser in a line)
    assert heun(constant, 3 * one, [2, 1])[0].item() == 2  # on a straight line both slopes are 1
    assert heun(lambda x, t: t * one, 3 * one, [2, 1])[0].item() == pytest.approx(
        3 - (0.5 + 1.5) / 2
    )  # slopes (3-2)/2, (2.5-1)/1


@pytest.mark.parametrize(
    ("name", "steps", "ratio"), [("heun", 40, 4), ("heun", 80, 4), ("ddim", 155, 2), ("ddim", 465, 2)]
)
def test_samplers_converge_to_the_ode_at_their_order(name: str, steps: int, ratio: float):
    noise = torch.tensor([80.0, -40.0], dtype=torch.float64)
    image = torch.tensor([0.7, -0.2], dtype=torch.float64)
    start = 0.002 if name == "heun" else 0.0
    for play, x, t, u in ((Solver.descend, noise, 80.0, 0.0), (Solver.ascend, image, start, 80.0)):
        errors = [
            (play(Solver(name, n), gaussian, x)[0] / (x * exact(t, u)) - 1).abs().max().item()
            for n in (steps, 2 * steps)
        ]
        assert errors[0] < 0.02
        assert errors[0] / errors[1] == pytest.approx(ratio, rel=0.15)


@pytest.mark.parametrize(
    ("solver", "state_error", "image_error"),
    [
        (Solver("heun", 18), 0.05, 0.02),
        (Solver("heun", 200), 5e-4, 1e-4),
        (Solver("ddim", 900), 0.004, 0.008),
    ],
)
def test_inversion_and_generation_return_the_image(solver: Solver, state_error: float, image_error: float):
    denoiser = GaussianDenoiser(TINY)
    images = (
        np.random.default_rng(0).uniform(-1, 1, (20, 3, 16, 16)).astype(np.float32)
    )  # more than one batch
    states = solver.invert(denoiser, images)
    assert states.dtype == np.float32
    np.testing.assert_allclose(states, images * exact(0, 80), rtol=state_error)
    np.testing.assert_allclose(solver.regenerate(denoiser, states), images, rtol=0, atol=image_error)


def test_generation_starts_from_the_noise_of_the_seed():
    solver, denoiser, seeds = Solver("heun", 60), GaussianDenoiser(TINY), range(100, 118)
    made = solver.generate(denoiser, seeds)
    assert (made.dtype, made.shape) == (np.float32, (18, 3, 16, 16))

    starts = start_state(parse_schedule("80>0.002"), NullBackend(TINY.sample_shape), seeds)
    np.testing.assert_allclose(made, starts * exact(80, 0), atol=0.01)
    assert_images_agree(made[17:], solver.generate(denoiser, [117]))


def test_labels_reach_their_images():
    solver, denoiser, labels = Solver("ddim", 2), tiny_denoiser(), np.arange(18) % 3
    together = solver.generate(denoiser, range(18), labels)
    for i in (3, 17):
        np.testing.assert_allclose(
            together[i], solver.generate(denoiser, [i], labels[i : i + 1])[0], rtol=1e-3, atol=1e-4
        )
    assert not np.allclose(together[0], solver.generate(denoiser, [0], labels[1:2])[0], atol=1e-3)


def test_a_denoiser_that_gives_nan():
    class Broken(GaussianDenoiser):
        def forward(self, x, t, label=None):
            x = x.clone()
            x[1] = torch.nan
            return x

    with pytest.raises(NonFiniteError, match="sample 1"):
        Solver("ddim", 2).generate(Broken(TINY), [0, 1, 2])


# ---- the denoiser and its objective


def test_denoiser_by_hand():
    model, t = tiny_denoiser(), torch.tensor([0.5, 80.0])
    x, label = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)), torch.tensor([1, 3])
    got = model(x, t, label)
    for i, (level, c_skip, c_out, c_in) in enumerate(
        [
            (0.5, 0.5, 0.5 / math.sqrt(2), math.sqrt(2)),
            (80.0, 0.25 / 6400.25, 40 / math.sqrt(6400.25), 1 / math.sqrt(6400.25)),
        ]
    ):
        tau = 250 * torch.tensor([level, 0.002]).log()
        raw = model.network(c_in * x[i : i + 1], tau[:1], tau[1:], label[i : i + 1])
        torch.testing.assert_close(got[i : i + 1], c_skip * x[i : i + 1] + c_out * raw, rtol=1e-4, atol=1e-5)


def test_loss_by_hand():
    class Zero(Denoiser):
        def forward(self, x, t, label=None):
            torch.testing.assert_close(
                x, torch.stack([torch.full((3, 16, 16), 1.5), torch.full((3, 16, 16), 1.0 + 2 * 3)])
            )
            return torch.zeros_like(x)

    at = Noising(torch.tensor([0.5, 2.0]), torch.stack([torch.ones(3, 16, 16), torch.full((3, 16, 16), 3.0)]))
    loss = Denoising(Zero(TINY))(torch.ones(2, 3, 16, 16), None, at)
    assert list(loss) == ["denoising"]
    assert loss["denoising"].item() == pytest.approx((8 + 4.25) / 2)  # λ(0.5) = 0.5 / 0.0625, λ(2) = 4.25 / 1


def test_a_perfect_denoiser_has_no_loss():
    images = torch.rand(4, 3, 16, 16)

    class Perfect(Denoiser):
        def forward(self, x, t, label=None):
            return images

    assert (
        Denoising(Perfect(TINY))(images, None, noised(images.shape, torch.Generator()))["denoising"].item()
        == 0
    )


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


# ---- training


@pytest.mark.slow
def test_training_reduces_the_loss():
    data = two_shapes()
    run = Trainer(
        data,
        network_for(data, 8),
        TrainOptions(steps=60, batch=12, channels=8, learning_rate=1e-2, objective="edm"),
    )
    losses = [run.step()["denoising"] for _ in range(60)]
    assert np.mean(losses[-10:]) < 0.5 * np.mean(losses[:10])


def test_training_resumes_to_the_same_weights(tmp_path: Path):
    data = two_shapes()
    whole, first = (Trainer(data, network_for(data, 8), EDM) for _ in range(2))
    for _ in range(4):
        first.step()
    first.save(tmp_path / "s")
    second = Trainer(data, network_for(data, 8), EDM)
    second.restore(tmp_path / "s")
    assert all(torch.equal(first.average[name], tensor) for name, tensor in second.average.items())
    assert all(torch.equal(a, b) for a, b in zip(first.parameters, second.parameters, strict=True))
    losses = [whole.step()["denoising"] for _ in range(7)]
    assert [second.step()["denoising"] for _ in range(3)] == pytest.approx(losses[4:], rel=1e-5)
    # Rounding alone leaves the runs 1e-7 apart. Without the optimizer's moments they would be 5e-4 apart.
    assert weights_apart(second.average.values(), whole.average.values()) < 3e-5
    ends = [run.model.network.state_dict().values() for run in (second, whole)]
    assert weights_apart(*ends) < 3e-5


def test_one_objective_does_not_resume_the_other(tmp_path: Path):
    data = two_shapes()
    Trainer(data, network_for(data, 8), EDM).save(tmp_path / "s")
    with pytest.raises(CheckpointError, match="other objective"):
        Trainer(data, network_for(data, 8), TrainOptions(steps=7, batch=4, channels=8)).restore(
            tmp_path / "s"
        )


@pytest.mark.slow
def test_train_writes_a_denoiser_and_its_samples(tmp_path: Path):
    data, out, seen = tmp_path / "data.npz", tmp_path / "base.safetensors", []
    np.savez(data, images=two_shapes().images.numpy(), labels=np.arange(12) % 2)
    pictures = train(str(data), out, EDM, seen.append)
    checkpoint = load_checkpoint(out)
    assert checkpoint.objective == checkpoint.provenance["objective"] == "edm"
    assert checkpoint.schedules == {}
    assert "intervals" not in checkpoint.provenance
    assert Image.open(pictures).size == (10 * 66 + 2, 10 * 66 + 2)
    assert [(p.intervals, list(p.losses)) for p in seen] == [(None, ["denoising"])] * 7
    weights = Trainer(two_shapes(), checkpoint.config, EDM, init=checkpoint).model.network.state_dict()
    assert all(torch.equal(weights[name], tensor) for name, tensor in checkpoint.state_dict.items())


def test_an_objective_that_does_not_exist():
    with pytest.raises(InputError, match="objective must be one of bcm, edm, not 'gan'"):
        TrainOptions(objective="gan")


# ---- a denoiser is not a BCM


def test_each_checkpoint_gives_its_own_kind_of_network():
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


def test_training_starts_from_its_own_kind_alone():
    data = two_shapes()
    config = network_for(data, 8)
    weights = Trainer(data, config, EDM).model.network.state_dict()
    with pytest.raises(CheckpointError, match="not a BCM"):
        Trainer(
            data,
            config,
            TrainOptions(channels=8),
            init=Checkpoint("base", config, weights, provenance=BASELINE),
        )
    with pytest.raises(CheckpointError, match="not a denoiser"):
        Trainer(data, config, EDM, init=Checkpoint("bcm", config, weights))


@pytest.mark.slow
def test_commands_say_what_comes_next_and_refuse_a_denoiser(cli: Cli, tmp_path: Path):
    data, base = tmp_path / "data.npz", tmp_path / "base.safetensors"
    np.savez(data, images=two_shapes().images.numpy(), labels=np.arange(12) % 2)
    small = ("--steps", 2, "--batch", 2, "--channels", 8, "--intervals", 10)
    trained = cli("train", "--data", data, *small, "--objective", "edm", "-o", base)
    assert trained.exit_code == 0, trained.stderr
    *_, step, _, _, last = trained.stderr.splitlines()
    assert step.startswith("step 2/2  denoising ")
    assert "intervals" not in step
    assert last == f"  bcm-edge evaluate BUNDLE --data DATA --baseline {base}"
    assert "is not a BCM" in refusal(cli("export", base, "-o", tmp_path / "b.bundle"))
    assert "is not a BCM" in refusal(
        cli("train", "--data", data, *small, "--init", base, "-o", tmp_path / "c.safetensors")
    )
    bcm = cli("train", "--data", data, *small, "-o", tmp_path / "bcm.safetensors")
    assert "\nstep 2/2  10 intervals  consistency 0." in bcm.stderr
    assert "bcm-edge export" in bcm.stderr


def test_a_denoiser_survives_its_file(tmp_path: Path):
    save_checkpoint(
        tmp_path / "d.safetensors", random_model().network.state_dict(), TINY, {}, BASELINE, torch.float32
    )
    x, t, label = torch.ones(1, 3, 16, 16), torch.tensor([2.0]), torch.tensor([0])
    read = load_checkpoint(tmp_path / "d.safetensors").denoiser()
    assert all(
        torch.equal(read.state_dict()[name], tensor) for name, tensor in tiny_denoiser().state_dict().items()
    )
    assert relative_l2(read(x, t, label), tiny_denoiser()(x, t, label)) < ROUNDING
