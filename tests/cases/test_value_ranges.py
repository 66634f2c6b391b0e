"""Value ranges: which images are accepted as they are, and what the messages advise for the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fixture_types import Cli
from refusals import refusal
from unit_images import SHAPE, unit_images

import bcm_edge
from bcm_edge import BcmError
from bcm_edge.errors import ImageError
from bcm_edge.jobs.dataset import find, read
from bcm_edge.runtime.pictures.images import images_from_array
from bcm_edge.serving.answers import TASKS

UNCLEAR = (
    "images have no value below 0, so they seem to lie in [0, 1] instead of [-1, 1]; "
    "convert them with images * 2 - 1, or"
)


def test_images_without_negative_values_are_refused(invert: Cli, unit_npz: Path):
    message = refusal(invert(unit_npz))
    assert message.startswith(f"{unit_npz}: {UNCLEAR}")
    assert "--value-range 0,1" in message


def test_value_range_option_accepts_them(invert: Cli, unit_npz: Path, tmp_path: Path):
    latents = {}
    for value_range in ("0,1", "-1,1"):
        assert invert(unit_npz, "--value-range", value_range).exit_code == 0
        latents[value_range] = np.load(tmp_path / "out.npz")["latents"]
    np.savez(unit_npz, images=unit_images() * 2 - 1, labels=np.arange(4))
    assert invert(unit_npz).exit_code == 0
    np.testing.assert_allclose(latents["0,1"], np.load(tmp_path / "out.npz")["latents"], atol=1e-5)
    assert np.abs(latents["-1,1"] - latents["0,1"]).max() > 0.01


@pytest.mark.parametrize("task", ["reconstruct", "restore", "variations", "upscale", "inpaint"])
def test_every_command_refuses_images_without_negative_values(
    cli: Cli, digits_bundle: Path, unit_npz: Path, tmp_path: Path, task: str
):
    if task == "upscale":
        np.savez(unit_npz, images=unit_images()[..., ::2, ::2], labels=np.arange(4))
    mask = tmp_path / "mask.npz"
    np.savez(mask, masks=np.eye(8))
    options = ("--mask", mask) if task == "inpaint" else ()
    result = cli(task, digits_bundle, unit_npz, *options, "-o", tmp_path / "out.npz")
    assert UNCLEAR in refusal(result)


def test_python_refuses_images_without_negative_values_unless_a_range_is_given(digits_bundle: Path):
    with bcm_edge.load(digits_bundle) as bcm:
        for task in (bcm.invert, bcm.reconstruct, bcm.restore, bcm.variations):
            with pytest.raises(ImageError, match="no value below 0"):
                task(unit_images(), labels=0)
        expected = bcm.invert(unit_images() * 2 - 1, labels=0)
        pixels = np.rint(unit_images() * 255).astype(np.uint8)
        assert bcm.invert(pixels, labels=0).shape == (4, *SHAPE)
    with bcm_edge.load(digits_bundle, value_range=(0, 1)) as bcm:
        np.testing.assert_allclose(bcm.invert(unit_images(), labels=0), expected, atol=1e-5)
        variations = bcm.variations(unit_images(), 1, strength=0, labels=0)[:, 0]  # converted once, not twice
        np.testing.assert_allclose(variations, bcm.reconstruct(unit_images(), labels=0), atol=1e-4)
        with pytest.raises(ImageError, match=r"must lie in \[0, 1\]; these go from -0.996 to"):
            bcm.invert(unit_images() * 2 - 1 - 1e-3, labels=0)
    with bcm_edge.load(digits_bundle, value_range=(-1, 1)) as bcm:
        assert bcm.invert(unit_images(), labels=0).shape == (4, *SHAPE)


@pytest.mark.parametrize("task", ["invert", "reconstruct", "interpolate", "inpaint"])
def test_server_checks_the_value_range_of_each_request(digits_bundle: Path, task: str):
    """A request with an unclear range is refused although another one in its batch is clear."""
    values = {
        "image": unit_images(1),
        "image_b": unit_images(1),
        "mask": np.eye(8, dtype=bool)[None],
        "seed": np.array([1], np.uint64),
        "label": np.array([3]),
    }
    names = {
        "interpolate": ("image", "image_b", "seed", "label"),
        "inpaint": ("image", "mask", "seed", "label"),
    }
    unclear = {name: values[name] for name in names.get(task, ("image", "seed", "label"))}
    clear = {**unclear, **{name: unclear[name] * 2 - 1 for name in ("image", "image_b") if name in unclear}}
    declared = {**unclear, "value_range": np.array(["0,1"], object)}
    with bcm_edge.load(digits_bundle, value_range=(-1, 1)) as bcm:
        first, second, third = TASKS[task].answer(bcm, [clear, unclear, declared])
    assert isinstance(second, BcmError) and "no value below 0" in str(second)
    assert not isinstance(first, BcmError) and not isinstance(third, BcmError)
    for name, values in first.items():
        assert np.abs(values.astype(float) - third[name]).max() <= (1 if values.dtype == np.uint8 else 1e-4)


def test_map_refuses_a_shard_without_negative_values(unit_npz: Path):
    [source] = find(str(unit_npz), "invert", SHAPE)
    with pytest.raises(ImageError, match="no value below 0"):
        read(source.path, 0, 4, "invert", SHAPE)
    assert read(source.path, 0, 4, "invert", SHAPE, (0, 1))["images"].min() < -0.9


@pytest.mark.parametrize(
    ("images", "problem"),
    [
        (np.full((1, *SHAPE), 127.0), "convert pixels from 0 to 255 with images / 127.5 - 1"),
        (np.full((1, *SHAPE), 200, np.int64), r"convert pixels from 0 to 255 with images.astype\('uint8'\)"),
        (np.full((1, *SHAPE), -3.0), r"must lie in \[-1, 1\]; these go from -3 to -3$"),
        (np.full((1, *SHAPE), np.inf), "NaN or infinity"),
        (np.zeros((1, *SHAPE), bool), "not bool"),
        (np.zeros((1, *SHAPE), complex), "not complex128"),
    ],
)
def test_message_contains_the_conversion(images: np.ndarray, problem: str):
    with pytest.raises(ImageError, match=problem):
        images_from_array(images, "in.npz")


def test_values_slightly_below_0_are_unclear_too():
    with pytest.raises(ImageError, match="no value below 0"):
        images_from_array(unit_images() - np.float32(1e-4), "in.npz")


@pytest.mark.parametrize("dtype", [np.uint8, np.bool_, np.int64])
def test_integers_of_only_0_and_1_are_refused(dtype: type):
    ones = (unit_images() > 0.5).astype(dtype)
    with pytest.raises(ImageError, match=r"convert 0 and 1 to pixels with \(?images \* 255"):
        images_from_array(ones, "in.npz")
    assert images_from_array(np.zeros((1, *SHAPE), np.uint8), "in.npz").max() == -1
    if dtype is np.uint8:
        assert images_from_array(ones, "in.npz", (-1, 1)).max() < -0.99


@pytest.mark.parametrize("value_range", [(0, 255), [1], "0,1", 3, np.array([0, 1, 2])])
def test_load_refuses_unknown_ranges(digits_bundle: Path, value_range: Any):
    with pytest.raises(BcmError, match=r"value_range must be \(-1, 1\) or \(0, 1\)"):
        bcm_edge.load(digits_bundle, value_range=value_range)
    array: Any = np.array([0, 1])
    assert bcm_edge.load(digits_bundle, value_range=array).value_range == (0, 1)
