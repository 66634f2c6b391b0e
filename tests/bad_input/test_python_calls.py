"""Arguments of the wrong type are refused by the methods of `BCM` with an error that names the argument."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

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
    [(b"x", "bytes"), (None, "NoneType"), ({}, "dict"), ([[1.0], [1.0, 2.0]], "list")],
)
def test_images_of_unknown_types(bcm: BCM, images: Any, kind: str) -> None:
    with pytest.raises(ImageError) as raised:
        bcm.invert(images, labels=1)
    forms = "arrays, tensors, images of Pillow, paths, or a list of these"
    assert str(raised.value) == f"images must be {forms}, not {kind}"


def test_entry_of_a_list_is_named(bcm: BCM) -> None:
    images: Any = [IMAGE, None]
    with pytest.raises(ImageError, match=r"^images\[1\] must be arrays, .*, not NoneType$"):
        bcm.invert(images, labels=1)
    with pytest.raises(
        ImageError, match=r"^images\[1\] have shape \[7, 8\], the model takes \[N, 1, 8, 8\]$"
    ):
        bcm.invert([IMAGE, IMAGE[0, :7]], labels=1)


def test_file_that_does_not_exist(bcm: BCM) -> None:
    with pytest.raises(ImageError, match=r"^three\.png: cannot be read \(No such file or directory\)$"):
        bcm.invert("three.png", labels=1)


def test_latents_that_are_not_an_array(bcm: BCM) -> None:
    latents: Any = "latents.npz"
    with pytest.raises(ImageError, match=r"^latents must be arrays or tensors, or a list of these, not str$"):
        bcm.generate(latents=latents, labels=1)


@pytest.mark.parametrize("shape", [(8,), (7, 8), (1, 3, 8, 8), (2, 1, 16, 16), (0, 1, 8, 8), (1, 1, 1, 8, 8)])
def test_arrays_are_not_resized(bcm: BCM, shape: tuple[int, ...]) -> None:
    with pytest.raises(ImageError) as raised:
        bcm.invert(np.full(shape, -0.5, np.float32), labels=1)
    assert str(raised.value) == f"images have shape {list(shape)}, the model takes [N, 1, 8, 8]"


def test_floats_with_channels_last_get_advice(bcm: BCM) -> None:
    with pytest.raises(ImageError, match=r"with np\.moveaxis\(images, -1, -3\)$"):
        bcm.invert(np.full((2, 8, 8, 1), -0.5, np.float32), labels=1)


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
