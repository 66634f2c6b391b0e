"""Methods that inpainting, upscaling and colouring are compared with."""

from __future__ import annotations

from typing import cast

import numpy as np
import pytest
from PIL import Image

from bcm_edge import BCM
from bcm_edge.evaluation.quality import Judge
from bcm_edge.evaluation.task_constrained import (
    TUNED_UPSCALING,
    enlarge,
    holes,
    inner_karras_levels,
    inpainting_methods,
    loop,
    measure_colouring,
    methods,
    right_hues,
    shrink,
    to_grey,
)
from bcm_edge.runtime.schedule import Schedule
from bcm_edge.runtime.tasks.constrained import COLOURING, UPSCALING

SEED = 7


Digits = tuple[np.ndarray, np.ndarray]


def test_levels_of_the_loop_of_consistency_models():
    levels = inner_karras_levels(7)
    assert len(levels) == 7
    assert levels == sorted(levels, reverse=True)
    assert levels[3] == pytest.approx(((80 ** (1 / 7) + 0.002 ** (1 / 7)) / 2) ** 7)
    assert str(loop((2, 0.5))) == "80>0.002 +2 2>0.002 +0.5 0.5>0.002"


@pytest.mark.parametrize("ours", [UPSCALING, COLOURING])
def test_methods_are_compared_at_equal_cost(ours: Schedule):
    assert {schedule.nfe for schedule in methods(ours, TUNED_UPSCALING).values()} == {ours.nfe}
    assert ours.nfe <= 8


@pytest.mark.parametrize("side", [8, 28, 2048])
def test_inpainting_is_compared_at_equal_cost(side: int):
    assert {schedule.nfe for schedule in inpainting_methods((3, side, side)).values()} == {8}


def test_tuned_levels_of_the_loop_grow_with_the_image_size():
    tuned = inpainting_methods((1, 16, 12))["consistency loop, tuned levels"]
    assert [move.t for move in tuned.moves] == [80, 2.4, 1.8, 1.4, 1, 0.8, 0.6, 0.4]


def test_holes_have_their_shapes():
    named = holes(8, 8)
    assert {name: int(hole.sum()) for name, hole in named.items()} == {
        "bottom half": 32,
        "middle": 16,
        "left half": 32,
    }
    assert named["bottom half"][7].all()
    assert not named["bottom half"][3].any()
    assert named["left half"][:, 3].all()


def test_shrinking_reverses_enlarging_by_nearest_neighbours(digits: Digits):
    small = shrink(digits[0][:3], 2)
    assert small.shape == (3, 1, 4, 4)
    assert small[0, 0, 0, 0] == pytest.approx(digits[0][0, 0, :2, :2].mean())
    assert np.array_equal(shrink(enlarge(small, 2, Image.Resampling.NEAREST), 2), small)


class Painter:
    """A stand-in for a model of colour images: it adds a tint that does not change the brightness."""

    num_classes = None

    def colorize(self, grey: np.ndarray, **_: object) -> np.ndarray:
        tint = np.array([0.114, 0, -0.299], np.float32).reshape(1, 3, 1, 1)  # of brightness 0
        return np.clip(grey + 0.5 * tint, -1, 1)


def test_share_of_right_hues():
    colours = np.zeros((1, 3, 1, 4), np.float32) - 1
    colours[0, 0] = 1  # red everywhere
    other = colours.copy()
    other[0, 2, 0, 0] = 1  # magenta once
    other[0, 1, 0, 1] = -0.8  # a red that is nearly the same, on one side of it
    other[0, 2, 0, 2] = -0.8  # and on the other side
    assert right_hues(other, colours) == 0.75
    assert right_hues(np.zeros_like(colours), colours) == 0
    assert np.isnan(right_hues(colours, np.zeros_like(colours)))


def test_colouring_is_compared_with_the_grey_images(judge: Judge):
    class ColourJudge:  # the features of the fixture `judge` are those of grey digits
        extractor = type("Mean", (), {"features": staticmethod(lambda x: x.reshape(len(x), -1)[:, :3])})
        features = np.random.default_rng(0).normal(size=(50, 3))

    images = np.random.default_rng(1).uniform(-0.5, 0.5, (6, 3, 8, 8)).astype(np.float32)
    painter, colour_judge = cast("BCM", Painter()), cast("Judge", ColourJudge())
    grey, painted = measure_colouring(painter, colour_judge, images, None, SEED, {"painted": COLOURING})
    assert (grey.method, grey.schedule, grey.hues) == ("left grey", None, 0)
    assert grey.grey_error < 1e-6
    assert painted.grey_error < 1e-6
    assert to_grey(images).shape == (6, 1, 8, 8)
