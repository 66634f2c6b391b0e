"""The chain on a model with a known consistency function, for which every state has a closed form."""

from __future__ import annotations

import numpy as np
import pytest
from agreement import assert_images_agree
from gaussian import SEEDS, SHAPE, GaussianBackend, GaussianDevice, S, scale

from bcm_edge import BcmError, parse_schedule
from bcm_edge.runtime.batches import Batch
from bcm_edge.runtime.chain import play
from bcm_edge.runtime.noise import INVERSION_DRAW, Draw, standard_normal
from bcm_edge.runtime.tasks import basic

BATCH = Batch(SEEDS)


def test_one_step_scales_the_start_noise():
    x = play(parse_schedule("80>0.002"), GaussianBackend(), BATCH)
    np.testing.assert_allclose(x, 80 * scale(80, 0.002) * standard_normal(SEEDS, SHAPE, 0), rtol=1e-6)


def test_moves_compose_along_the_trajectory():
    direct = play(parse_schedule("80>0.002"), GaussianBackend(), BATCH)
    in_steps = play(parse_schedule("80>15>2.4>0.3>0.002"), GaussianBackend(), BATCH)
    np.testing.assert_allclose(in_steps, direct, rtol=1e-5)


def test_each_injection_adds_its_own_draw_before_the_next_move():
    backend = GaussianBackend()
    x = play(parse_schedule("80>0.002 +0.1 0.1>1.2>0.002 +0.5 0.5>0.002"), backend, BATCH)
    z0, z1, z2 = (standard_normal(SEEDS, SHAPE, draw) for draw in (0, 1, 2))
    expected = 80 * scale(80, 0.002) * z0
    expected = (expected + 0.1 * z1) * scale(0.1, 1.2) * scale(1.2, 0.002)
    expected = (expected + 0.5 * z2) * scale(0.5, 0.002)
    np.testing.assert_allclose(x, expected, rtol=1e-5, atol=1e-6)
    assert [noisy for _, noisy in backend.calls] == [False, True, False, True]


def test_inversion_adds_its_own_draw_to_the_image():
    image = np.full((3, *SHAPE), 0.25, np.float32)
    latents = basic.invert(GaussianBackend(), parse_schedule("+0.07 0.07>15>80"), BATCH, image)
    noisy = image + 0.07 * standard_normal(SEEDS, SHAPE, INVERSION_DRAW)
    np.testing.assert_allclose(latents, noisy * scale(0.07, 80) / 80, rtol=1e-5)


def test_reconstruction_is_inversion_then_generation():
    image = np.clip(standard_normal(SEEDS, SHAPE, 5) * S, -1, 1)
    up, down = parse_schedule("+0.07 0.07>15>80"), parse_schedule("80>2.4>0.002 +0.12 0.12>0.4>0.002")
    backend = GaussianBackend()
    at_once = basic.reconstruct(backend, up, down, BATCH, image)
    latents = basic.invert(backend, up, BATCH, image)
    np.testing.assert_allclose(at_once, basic.generate(backend, down, BATCH, latents), atol=1e-5)
    # The difference is noise of standard deviation 0.07 and 0.12, which the schedules add.
    assert np.abs(at_once - image).max() < 0.6


def test_after_move_receives_every_state():
    seen = []
    x = play(
        parse_schedule("80>2.4>0.002"),
        GaussianBackend(),
        BATCH,
        after_move=lambda move, state: seen.append((str(move), state)),
    )
    assert [move for move, _ in seen] == ["80>2.4", "2.4>0.002"]
    assert (seen[-1][1] == x).all()


def test_nan_is_reported_with_move_and_sample():
    with pytest.raises(BcmError, match=r"move 2 of 3 \(2.4>0.5\) on backend gaussian gave NaN .*sample 1"):
        play(parse_schedule("80>2.4>0.5>0.002"), GaussianBackend(poison=0.5), BATCH)


def test_invert_and_generate_refuse_each_others_schedules():
    with pytest.raises(BcmError, match="does not invert"):
        basic.invert(GaussianBackend(), parse_schedule("80>0.002"), BATCH, np.zeros((3, *SHAPE), np.float32))
    with pytest.raises(BcmError, match="does not invert"):
        basic.invert(
            GaussianBackend(), parse_schedule("+0.07 0.07>15"), BATCH, np.zeros((3, *SHAPE), np.float32)
        )
    with pytest.raises(BcmError, match="starts from an image"):
        basic.generate(GaussianBackend(), parse_schedule("+0.07 0.07>80"), BATCH)


@pytest.mark.parametrize("text", ["80>2.4", "2.4>0.002", "0.002>80"])
def test_generate_needs_a_schedule_from_noise_to_the_image(text: str):
    with pytest.raises(BcmError, match=r"a generation goes from 80 to 0\.002"):
        basic.generate(GaussianBackend(), parse_schedule(text), BATCH)


def test_device_gets_noise_that_has_not_been_drawn():
    program, device = parse_schedule("80>0.002 +0.1 0.1>1.2>0.002"), GaussianDevice()
    x = play(program, device, BATCH)
    start, injected = Draw(SEEDS, SHAPE, 0, 80), Draw(SEEDS, SHAPE, 1, 0.1)
    assert device.inputs == [start, None, injected, None]
    assert_images_agree(x, play(program, GaussianBackend(), BATCH))


def test_device_gets_an_image_as_an_array():
    image, device = np.full((3, *SHAPE), 0.25, np.float32), GaussianDevice()
    play(parse_schedule("+0.07 0.07>15>80"), device, BATCH, image)
    assert device.inputs[0] is image
    assert device.inputs[1:] == [Draw(SEEDS, SHAPE, INVERSION_DRAW, 0.07), None]


def test_device_continues_from_a_projected_image():
    device = GaussianDevice()
    play(parse_schedule("80>0.002 +0.1 0.1>0.002"), device, BATCH, project=lambda x: np.full_like(x, 0.5))
    assert device.inputs[0] == Draw(SEEDS, SHAPE, 0, 80) and device.inputs[3] == Draw(SEEDS, SHAPE, 1, 0.1)
    np.testing.assert_array_equal(device.inputs[2], np.full((3, *SHAPE), 0.5, np.float32))
