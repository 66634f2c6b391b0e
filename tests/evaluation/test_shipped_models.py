"""How good the shipped models must be."""

from __future__ import annotations

import numpy as np
import pytest

from bcm_edge.model.checkpoint import load_checkpoint, shipped_checkpoint
from bcm_edge.model.player import TorchBackend
from bcm_edge.runtime.batches import Batch
from bcm_edge.runtime.chain import play
from bcm_edge.runtime.pixels import mean_squared_error
from bcm_edge.runtime.schedule import parse_schedule


@pytest.fixture(scope="module")
def shipped():
    return load_checkpoint(shipped_checkpoint())


def test_shipped_file_is_small():
    assert shipped_checkpoint().stat().st_size <= 2_000_000


def test_shipped_schedules(shipped):
    calls = {name: parse_schedule(text).nfe for name, text in shipped.schedules.items()}
    assert calls == {
        "one-step": 1,
        "ancestral-2": 2,
        "zigzag-3": 3,
        "mixture-4": 4,
        "invert-1": 1,
        "invert-2": 2,
    }
    assert all(text == str(parse_schedule(text)) for text in shipped.schedules.values())


def test_shipped_samples(judge, shipped):
    """Bounds with slack for one set of seeds; docs/model.md has what was reached."""
    backend = TorchBackend(shipped.model())
    ratios = []
    for name in ("one-step", "ancestral-2", "zigzag-3", "mixture-4"):
        images = judge.generate(parse_schedule(shipped.schedules[name]), backend, 77)
        assert judge.agreement(images) >= 0.95
        ratios.append(judge.ratio(images))
    assert ratios[0] <= 2.5
    assert min(ratios) <= 2
    assert ratios[0] > max(ratios[1:])  # more network calls, better samples


def test_shipped_reconstructions(judge, shipped):
    backend = TorchBackend(shipped.model())
    one, two = (
        judge.reconstruction_error(parse_schedule(shipped.schedules[name]), backend, 77)
        for name in ("invert-1", "invert-2")
    )
    assert one <= 0.005
    assert two <= 0.0033  # the seeds of docs/model.md give .0030
    assert two < one


def test_the_second_model_makes_images_that_it_inverts():
    """What can be said of it without its data; docs/report-mnist.html has it on test images."""
    checkpoint = load_checkpoint(shipped_checkpoint("mnist"))
    backend, batch = TorchBackend(checkpoint.model()), Batch(range(20), np.arange(20) % 10)
    programs = {name: parse_schedule(text) for name, text in checkpoint.schedules.items()}
    made = np.clip(play(programs["zigzag-3"], backend, batch), -1, 1)
    assert 0.6 < (made < -0.9).mean() < 0.9 and made.max() > 0.95  # mostly black, with strokes
    errors = []
    for name in ("invert-1", "invert-2"):
        latents = play(programs[name], backend, batch, made)
        back = play(programs["one-step"], backend, batch, latents)
        errors.append(float(mean_squared_error(back, made).mean()))
    assert errors[1] < errors[0] < 0.01
