"""Arguments of the wrong type are refused by the methods of `BCM` with an error that names the argument."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import bcm_edge
from bcm_edge import BCM
from bcm_edge.errors import ImageError, InputError, LabelError, OutputError, ScheduleError

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


@pytest.mark.parametrize(("number", "kind"), [("4", "str"), (4.0, "float"), ([4], "list"), (True, "bool")])
def test_numbers_that_are_not_integers(digits_bundle: Path, bcm: BCM, number: Any, kind: str) -> None:
    with pytest.raises(InputError, match=rf"^n must be an integer, not {kind}$"):
        bcm.generate(number, labels=1)
    with pytest.raises(InputError, match=rf"^n must be an integer, not {kind}$"):
        bcm.variations(IMAGE[None], number, labels=1)
    with pytest.raises(InputError, match=rf"^frames must be an integer, not {kind}$"):
        bcm.interpolate(IMAGE[None], IMAGE[None], frames=number, labels=1)
    with pytest.raises(InputError, match=rf"^batch must be an integer, not {kind}$"):
        bcm_edge.load(digits_bundle, batch=number)
    with pytest.raises(InputError, match=rf"^factor must be an integer, not {kind}$"):
        bcm.upscale(IMAGE[None, :, ::2, ::2], factor=number, labels=1)
    with pytest.raises(InputError, match=rf"^factor must be an integer, not {kind}$"):
        bcm.guess_labels(IMAGE[None], factor=number)


def test_numbers_may_be_numpy_integers(bcm: BCM) -> None:
    number: Any = np.int64(2)
    assert len(bcm.generate(number, labels=1)) == 2


STRENGTHS = [
    ("0.3", "str"),
    (None, "NoneType"),
    (True, "bool"),
    ([0.3], "list"),
    (np.array([0.1, 0.2]), "ndarray"),
]


@pytest.mark.parametrize(("strength", "kind"), STRENGTHS)
def test_strengths_that_are_not_numbers(bcm: BCM, strength: Any, kind: str) -> None:
    for method in (bcm.restore, bcm.variations):
        with pytest.raises(InputError, match=rf"^strength must be a number, not {kind}$"):
            method(IMAGE[None], strength=strength, labels=1)


@pytest.mark.parametrize(
    ("path", "kind"),
    [(None, "NoneType"), (3, "int"), (b"digits", "bytes"), (["digits"], "list"), (IMAGE, "ndarray")],
)
def test_paths_of_unknown_types(bcm: BCM, path: Any, kind: str) -> None:
    message = r"path must be a path, a text or an os\.PathLike, not"
    with pytest.raises(InputError, match=rf"^{message} {kind}$"):
        bcm_edge.load(path)
    with pytest.raises(OutputError, match=rf"^{message} {kind}$"):
        bcm.save(IMAGE, path)
    for read in (bcm.read_images, bcm_edge.read_images):
        with pytest.raises(ImageError, match=rf"^{message} {kind}$"):
            read([path])


def test_empty_path(bcm: BCM) -> None:
    for call in (bcm_edge.load, bcm.read_images, bcm.invert, partial(bcm.save, IMAGE)):
        with pytest.raises(InputError, match=r"^(path|images) is empty; give the name of a file or folder$"):
            call("")


def test_home_of_an_unknown_user(bcm: BCM) -> None:
    for call in (bcm_edge.load, bcm.read_images, bcm.invert, lambda path: bcm.save(IMAGE, path)):
        with pytest.raises(InputError, match=r"^~nobody-has-this-name/x\.png: unknown user"):
            call("~nobody-has-this-name/x.png")


@pytest.mark.parametrize("size", [8, (8, 8), (1, 8, 0), (1, 8, 8.0), "188"])
def test_sizes_that_are_not_three_numbers(size: Any) -> None:
    with pytest.raises(ImageError, match=r"^size must be three positive integers \(C, H, W\), not"):
        bcm_edge.read_images("never.png", size)


def test_empty_list_of_paths(bcm: BCM) -> None:
    for read in (bcm.read_images, bcm_edge.read_images):
        with pytest.raises(ImageError, match=r"^there are no images to read"):
            read([])


@pytest.mark.parametrize("labels", [[[1], [1, 2]], [True, 1], [[1, 2]]])
def test_labels_that_are_not_one_list(bcm: BCM, labels: Any) -> None:
    for call in (bcm.generate, partial(bcm.invert, [IMAGE, IMAGE])):
        with pytest.raises(LabelError, match=r"^(labels must be|\d labels were given)"):
            call(labels=labels)


@pytest.mark.parametrize("seed", [[[1], [1, 2]], True, [True, False], {1, 2}, b"ab", "12", {1: 2, 3: 4}])
def test_seeds_that_are_not_integers(bcm: BCM, seed: Any) -> None:
    with pytest.raises(InputError, match=r"^seeds must be integers$"):
        bcm.generate(2, labels=1, seed=seed)


@pytest.mark.parametrize("argument", ["backend", "precision", "device"])
def test_names_that_are_not_texts(digits_bundle: Path, argument: str) -> None:
    names: dict[str, Any] = {argument: np.array(["a", "b"])}
    with pytest.raises(InputError, match=rf"^{argument} must be a text, not ndarray$"):
        bcm_edge.load(digits_bundle, **names)


@pytest.mark.parametrize("value_range", [["a", "b"], [None, 1], [[1], [1, 2]]])
def test_value_ranges_that_are_not_numbers(digits_bundle: Path, value_range: Any) -> None:
    with pytest.raises(InputError, match=r"^value_range must be \(-1, 1\) or \(0, 1\), not "):
        bcm_edge.load(digits_bundle, value_range=value_range)


def test_on_move_that_cannot_be_called(bcm: BCM) -> None:
    on_move: Any = 3
    with pytest.raises(InputError, match=r"^on_move must be a function of one argument, not int$"):
        bcm.generate(labels=1, on_move=on_move)


def test_masked_arrays_are_refused(bcm: BCM) -> None:
    masked = np.ma.masked_less(np.full((1, 8, 8), -0.5, np.float32), 0)
    with pytest.raises(ImageError, match=r"^images have masked values; .*images\.filled"):
        bcm.invert(masked, labels=1)
    with pytest.raises(ImageError, match=r"^latents have masked values; "):
        bcm.generate(latents=masked, labels=1)
    unmasked = bcm.invert(np.ma.masked_array(IMAGE), labels=1)
    assert type(unmasked) is np.ndarray


@pytest.mark.parametrize("size", [(0, 0), (0, 5), (5, 0)])
def test_pictures_without_pixels(bcm: BCM, size: tuple[int, int]) -> None:
    empty = Image.new("L", size)
    with pytest.raises(ImageError, match=rf"^images: has no pixels \({size[0]}×{size[1]}\)$"):
        bcm.invert(empty, labels=1)
    with pytest.raises(ImageError, match=rf"^holes: has no pixels \({size[0]}×{size[1]}\)$"):
        bcm.inpaint(IMAGE, empty, labels=1)


@pytest.mark.parametrize("value", [np.nan, 1j, "1"])
def test_holes_of_other_types(bcm: BCM, value: Any) -> None:
    with pytest.raises(ImageError, match=r"^holes must be booleans or finite numbers, not "):
        bcm.inpaint(IMAGE, np.full((8, 8), value), labels=1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"factor": 0}, r"^images of 8×8 pixels cannot be enlarged to 8×8; possible sizes: 4×4, "),
        ({"factor": 3}, r"^images of 8×8 pixels cannot be enlarged to 8×8; "),
        ({"grey": True}, r"^colorize needs a model of 3 channels"),
        ({"factor": 2, "holes": np.eye(8)}, r"; give one of holes, grey and factor$"),
    ],
)
def test_parts_of_images_that_cannot_be_known(bcm: BCM, arguments: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        bcm.guess_labels(IMAGE, **arguments)


def test_modules_of_torch_are_not_tensors(bcm: BCM) -> None:
    torch = pytest.importorskip("torch")
    for value in (torch.nn.Linear(1, 1), torch.float32, torch.nn.Linear):
        with pytest.raises(ImageError, match=r"^images must be arrays, tensors, "):
            bcm.invert(value, labels=1)
    for name, error in (("labels", LabelError), ("seed", InputError)):
        with pytest.raises(error, match=r"cannot be converted to an array"):
            arguments: Any = {"labels": 1, name: torch.empty(1, device="meta", dtype=torch.int64)}
            bcm.generate(**arguments)


@pytest.mark.parametrize("lengths", [(3, 2), (1, 3), (0, 3)])
def test_rows_of_different_lengths_are_not_saved(bcm: BCM, tmp_path: Path, lengths: tuple[int, int]) -> None:
    rows = [[Image.new("L", (8, 8))] * length for length in lengths]
    with pytest.raises(ImageError, match=r"^rows of images have different lengths: "):
        bcm.save(rows, tmp_path / "rows.png")
    assert not list(tmp_path.iterdir())
