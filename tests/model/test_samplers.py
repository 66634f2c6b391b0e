"""The samplers of the baselines, on data whose denoiser is known.

The literal levels were computed by separate arithmetic, in logarithms.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from agreement import assert_images_agree
from denoisers import GaussianDenoiser, gaussian, tiny_denoiser
from gaussian import scale
from networks import TINY
from torch import Tensor

from bcm_edge.errors import InputError, NonFiniteError
from bcm_edge.model.samplers import Solver, ddim, ddim_levels, ddpm_sigmas, heun, heun_levels
from bcm_edge.runtime.backends.null import NullBackend
from bcm_edge.runtime.chain import start_state
from bcm_edge.runtime.schedule import parse_schedule

pytestmark = [pytest.mark.numerical, pytest.mark.usefixtures("one_thread")]


def test_levels_of_heun():
    five = [80, 17.52783196464411, 2.515218976147159, 0.16975275626876413, 0.002, 0]
    assert heun_levels(5) == pytest.approx(five, rel=1e-12)
    levels = heun_levels(18)
    assert (len(levels), levels[0], levels[-2], levels[-1]) == (19, 80, 0.002, 0)


def test_levels_of_the_linear_schedule_of_ddpm():
    sigmas = ddpm_sigmas()
    assert len(sigmas) == 1000
    expected = [0.010000500037503125, 0.04357054370523511, 3.424136619044041, 157.4072808104075]
    assert [sigmas[n - 1] for n in (1, 10, 500, 1000)] == pytest.approx(expected, rel=1e-9)


def test_levels_of_ddim():
    assert ddim_levels(1).tolist() == [80, 0]
    four = [80, 11.771016274043387, 2.836572188692807, 0.8642423383922206, 0]
    assert ddim_levels(4) == pytest.approx(four, rel=1e-9)
    all_levels = ddim_levels(930)
    assert all_levels[1] < 79.6
    assert (np.diff(all_levels) < 0).all()
    assert all_levels[-2] == pytest.approx(0.0100005)


@pytest.mark.parametrize(
    ("name", "steps", "message"),
    [
        ("euler", 3, "heun or ddim, not 'euler'"),
        ("heun", 1, "at least 2"),
        ("ddim", 0, "at least 1"),
        ("ddim", 931, r"at most 930 steps \(levels up to 80\), got 931"),
    ],
)
def test_unknown_solvers_and_numbers_of_steps_are_refused(name: str, steps: int, message: str):
    with pytest.raises(InputError, match=message):
        Solver(name, steps)


CALLS = [
    (Solver("heun", 18), (35, 34)),
    (Solver("heun", 2), (3, 2)),
    (Solver("ddim", 10), (10, 10)),
    (Solver("ddim", 1), (1, 1)),
]


@pytest.mark.parametrize(("solver", "calls"), CALLS)
def test_network_calls_are_counted(solver: Solver, calls: tuple[int, int]):
    levels: list[float] = []

    def counted(x: Tensor, t: float) -> Tensor:
        levels.append(t)
        return gaussian(x, t)

    assert (solver.nfe, solver.inversion_nfe) == calls
    for play, expected in zip((solver.descend, solver.ascend), calls, strict=True):
        levels.clear()
        assert play(counted, torch.ones(2))[1] == len(levels) == expected
        assert all(0.002 <= t <= 80 for t in levels)


def test_levels_at_which_slopes_are_taken():
    """A denoiser that returns 0 gives the slope x / t, so every step is a product."""
    levels: list[float] = []

    def zero(x: Tensor, t: float) -> Tensor:
        levels.append(t)
        return torch.zeros_like(x)

    one = torch.ones(1, dtype=torch.float64)
    assert ddim(zero, one, [0, 1, 3])[0].item() == pytest.approx(2 * 3)  # 1 + 1·1/1, then 2 + 2·2/1
    assert levels == [1, 1]
    assert heun(zero, one, [4, 2, 0])[0].item() == 0
    assert levels[2:] == [4, 2, 2]


def test_heun_takes_the_mean_of_two_slopes():
    one = torch.ones(1, dtype=torch.float64)
    straight = heun(lambda x, t: torch.ones_like(x), 3 * one, [2, 1])[0]
    assert straight.item() == 2  # both slopes are 1
    curved = heun(lambda x, t: t * one, 3 * one, [2, 1])[0]
    assert curved.item() == pytest.approx(3 - (0.5 + 1.5) / 2)  # the slopes are (3-2)/2 and (2.5-1)/1


@pytest.mark.parametrize(
    ("name", "steps", "ratio"), [("heun", 40, 4), ("heun", 80, 4), ("ddim", 155, 2), ("ddim", 465, 2)]
)
def test_samplers_converge_to_the_ode_at_their_order(name: str, steps: int, ratio: float):
    noise = torch.tensor([80.0, -40.0], dtype=torch.float64)
    image = torch.tensor([0.7, -0.2], dtype=torch.float64)
    start = 0.002 if name == "heun" else 0.0
    for play, x, t, u in ((Solver.descend, noise, 80.0, 0.0), (Solver.ascend, image, start, 80.0)):
        exact = x * scale(t, u)
        few, many = (play(Solver(name, n), gaussian, x)[0] for n in (steps, 2 * steps))
        error, smaller = ((result / exact - 1).abs().max().item() for result in (few, many))
        assert error < 0.02
        assert error / smaller == pytest.approx(ratio, rel=0.15)


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
    # 20 images are more than one batch.
    images = np.random.default_rng(0).uniform(-1, 1, (20, 3, 16, 16)).astype(np.float32)
    states = solver.invert(denoiser, images)
    assert states.dtype == np.float32
    np.testing.assert_allclose(states, images * scale(0, 80), rtol=state_error)
    np.testing.assert_allclose(solver.regenerate(denoiser, states), images, rtol=0, atol=image_error)


def test_generation_starts_from_the_noise_of_the_seed():
    solver, denoiser, seeds = Solver("heun", 60), GaussianDenoiser(TINY), range(100, 118)
    images = solver.generate(denoiser, seeds)
    assert (images.dtype, images.shape) == (np.float32, (18, 3, 16, 16))

    starts = start_state(parse_schedule("80>0.002"), NullBackend(TINY.sample_shape), seeds).values()
    np.testing.assert_allclose(images, starts * scale(80, 0), atol=0.01)
    assert_images_agree(images[17:], solver.generate(denoiser, [117]))


def test_labels_belong_to_their_images_in_a_batch():
    solver, denoiser, labels = Solver("ddim", 2), tiny_denoiser(), np.arange(18) % 3
    together = solver.generate(denoiser, range(18), labels)
    for i in (3, 17):
        alone = solver.generate(denoiser, [i], labels[i : i + 1])[0]
        np.testing.assert_allclose(together[i], alone, rtol=1e-3, atol=1e-4)
    assert not np.allclose(together[0], solver.generate(denoiser, [0], labels[1:2])[0], atol=1e-3)


def test_error_of_nan_names_the_sample():
    class Broken(GaussianDenoiser):
        def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
            x = x.clone()
            x[1] = torch.nan
            return x

    with pytest.raises(NonFiniteError, match="sample 1"):
        Solver("ddim", 2).generate(Broken(TINY), [0, 1, 2])
