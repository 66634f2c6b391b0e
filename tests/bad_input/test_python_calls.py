"""Arguments of the wrong type are refused by the methods of `BCM` with an error that names the argument."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import bcm_edge
from bcm_edge import BCM
from bcm_edge.errors import ImageError, InputError, ScheduleError

IMAGE = np.full((1, 8, 8), -0.5, np.float32)


@pytest.fixture(scope="module")
def bcm(digits_bundle: Path) -> Iterator[BCM]:
    """The digits model on the backend that computes nothing."""
    with bcm_edge.load(digits_bundle, backend="null") as opened:
        yield opened


@pytest.mark.parametrize(("schedule", "kind"), [(4, "int"), (None, "NoneType"), ([80, 0.002], "list")])
def test_schedule_that_is_not_a_text(bcm: BCM, schedule: Any, kind: str) -> None:
    with pytest.raises(ScheduleError) as raised:
        bcm.generate(labels=1, schedule=schedule)
    expected = "schedule must be a name, a text such as '80>2.4>0.002' or a Schedule, not"
    assert str(raised.value) == f"{expected} {kind}"


@pytest.mark.parametrize(
    ("images", "kind"),
    [("three.png", "str"), (b"x", "bytes"), (None, "NoneType"), (["three.png"], "list"), ({}, "dict")],
)
def test_images_that_are_not_an_array(bcm: BCM, images: Any, kind: str) -> None:
    with pytest.raises(ImageError) as raised:
        bcm.invert(images, labels=1)
    assert str(raised.value) == f"images must be an array [N, 1, 8, 8], not {kind}"


def test_rows_of_different_lengths(bcm: BCM) -> None:
    rows: Any = [[1.0], [1.0, 2.0]]
    with pytest.raises(ImageError, match=r"images must be an array \[N, 1, 8, 8\], not list"):
        bcm.invert(rows, labels=1)


def test_latents_that_are_not_an_array(bcm: BCM) -> None:
    latents: Any = "latents.npz"
    with pytest.raises(ImageError, match=r"latents must be an array \[N, 1, 8, 8\], not str"):
        bcm.generate(latents=latents, labels=1)


@pytest.mark.parametrize(
    ("image", "shape", "advice"),
    [
        (IMAGE, "[1, 8, 8]", "images[None]"),
        (IMAGE[0], "[8, 8]", "images[None, None]"),
        (Image.new("L", (8, 8)), "[8, 8]", "np.asarray(images)[None, None]"),
    ],
    ids=["channels", "grey", "PIL"],
)
def test_image_without_a_batch_axis(bcm: BCM, image: Any, shape: str, advice: str) -> None:
    with pytest.raises(ImageError) as raised:
        bcm.invert(image, labels=1)
    problem = f"images have shape {shape}, the model takes [N, 1, 8, 8]"
    assert str(raised.value) == f"{problem}; for one image use {advice}"


def test_image_of_another_shape_gets_no_advice(bcm: BCM) -> None:
    with pytest.raises(ImageError, match=r"the model takes \[N, 1, 8, 8\]$"):
        bcm.invert(np.zeros((3, 8, 8), np.float32), labels=1)


@pytest.mark.parametrize(("number", "kind"), [("4", "str"), (4.0, "float"), ([4], "list")])
def test_numbers_that_are_not_integers(digits_bundle: Path, bcm: BCM, number: Any, kind: str) -> None:
    with pytest.raises(InputError, match=rf"^n must be an integer, not {kind}$"):
        bcm.generate(number, labels=1)
    with pytest.raises(InputError, match=rf"^n must be an integer, not {kind}$"):
        bcm.variations(IMAGE[None], number, labels=1)
    with pytest.raises(InputError, match=rf"^frames must be an integer, not {kind}$"):
        bcm.interpolate(IMAGE[None], IMAGE[None], frames=number, labels=1)
    with pytest.raises(InputError, match=rf"^batch must be an integer, not {kind}$"):
        bcm_edge.load(digits_bundle, batch=number)


def test_numbers_may_be_numpy_integers(bcm: BCM) -> None:
    assert len(bcm.generate(np.int64(2), labels=1)) == 2  # type: ignore[arg-type]
