"""The public API on a real bundle: shapes, ranges, seeds, labels, batches."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from agreement import assert_images_agree, assert_pixels_agree, assert_pixels_show
from PIL import Image

import bcm_edge
from bcm_edge import BCM, BcmError, NetworkCall
from bcm_edge.errors import InputError
from bcm_edge.runtime.pixels import from_uint8


@pytest.fixture(scope="module")
def bcm(digits_bundle: Path) -> Iterator[BCM]:
    """The shipped model."""
    with bcm_edge.load(digits_bundle) as opened:
        yield opened


def test_auto_opens_onnxruntime(bcm: BCM):
    assert bcm.backend.name == "onnxruntime"


def test_generate_returns_float32_images_in_range(bcm: BCM):
    images = bcm.generate(3, schedule="mixture-4", labels=[0, 1, 2])
    assert images.shape == (3, 1, 8, 8) and images.dtype == np.float32
    assert images.min() >= -1 and images.max() <= 1 and images.std() > 0.3


def test_one_image_of_64_agrees_with_the_same_seed_alone(bcm: BCM):
    labels = np.arange(64) % 10
    images = bcm.generate(64, seed=100, schedule="mixture-4", labels=labels)
    alone = bcm.generate(1, seed=117, schedule="mixture-4", labels=labels[17:18])
    assert_images_agree(images[17], alone[0])


def test_seeds_can_be_listed(bcm: BCM):
    listed = bcm.generate(seed=[5, 3], labels=4)
    assert_images_agree(listed, bcm.generate(3, seed=3, labels=4)[[2, 0]])


def test_generate_from_latents_returns_the_images(bcm: BCM):
    images = bcm.generate(10, labels=np.arange(10), schedule="mixture-4")
    latents = bcm.invert(images, labels=np.arange(10))
    assert latents.shape == images.shape and latents.dtype == np.float32 and 0.5 < latents.std() < 1.5
    back = bcm.generate(latents=latents, labels=np.arange(10))
    assert_images_agree(back, bcm.reconstruct(images, labels=np.arange(10)))
    assert np.square((back - images) / 2).mean() < 0.01


def test_schedule_is_a_name_a_text_or_an_object(bcm: BCM):
    text = bcm.schedules["ancestral-2"]
    by_name = bcm.generate(2, schedule="ancestral-2", labels=1)
    assert (by_name == bcm.generate(2, schedule=text, labels=1)).all()
    assert (by_name == bcm.generate(2, schedule=bcm_edge.parse_schedule(text), labels=1)).all()


def test_on_move_is_called_once_per_network_call(bcm: BCM):
    calls: list[NetworkCall] = []
    bcm.generate(20, schedule="80>2.4>0.002", labels=0, on_move=calls.append)
    assert [(call.index, call.total) for call in calls] == [(0, 4), (1, 4), (2, 4), (3, 4)]
    assert [str(call.move) for call in calls] == ["80>2.4", "2.4>0.002"] * 2
    assert [call.rows for call in calls] == [slice(0, 16)] * 2 + [slice(16, 20)] * 2
    assert [call.state.shape for call in calls] == [(16, 1, 8, 8)] * 2 + [(4, 1, 8, 8)] * 2


@pytest.mark.parametrize(
    ("task", "total"),
    [
        (lambda bcm, images, on_move: bcm.invert(images, labels=1, on_move=on_move), 2 * 2),
        (lambda bcm, images, on_move: bcm.reconstruct(images, labels=1, on_move=on_move), 2 * 3),
        # two inversions of 20 images, 2 parts each, and 60 frames in 4 parts
        (
            lambda bcm, images, on_move: bcm.interpolate(images, images, frames=3, labels=1, on_move=on_move),
            2 * 2 * 2 + 4,
        ),
        (lambda bcm, images, on_move: bcm.variations(images, 2, labels=1, on_move=on_move), 2 * 2 + 3),
        (lambda bcm, images, on_move: bcm.restyle(images, labels=1, to=2, on_move=on_move), 2 * 3),
        (lambda bcm, images, on_move: bcm.restore(images, labels=1, on_move=on_move), 2 * 2),
        (lambda bcm, images, on_move: bcm.guess_labels(images, on_move=on_move), 2 * 5 * 10),
        (
            lambda bcm, images, on_move: bcm.trace("80>0.002", images=images, labels=1, on_move=on_move),
            2 * 3,
        ),
    ],
    ids=["invert", "reconstruct", "interpolate", "variations", "restyle", "restore", "guess_labels", "trace"],
)
def test_calls_are_numbered_over_the_whole_method(bcm: BCM, task: Any, total: int):
    calls: list[NetworkCall] = []
    task(bcm, np.full((20, 1, 8, 8), -0.5, np.float32), calls.append)
    assert [(call.index, call.total) for call in calls] == [(index, total) for index in range(total)]
    assert all(len(call.state) == call.rows.stop - call.rows.start for call in calls)


def test_on_move_cannot_change_the_state(bcm: BCM):
    def change(call: NetworkCall) -> None:
        call.state[:] = 0

    with pytest.raises(ValueError, match="read-only"):
        bcm.generate(2, schedule="80>2.4>0.002", labels=1, on_move=change)


def test_exception_of_on_move_stops_the_method(bcm: BCM):
    made = []

    def stop(call: NetworkCall) -> None:
        made.append(call.index)
        if call.index == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bcm.generate(64, labels=1, on_move=stop)
    assert made == [0, 1, 2]


def test_images_are_returned_as_floats_pixels_or_pictures(bcm: BCM):
    floats = bcm.generate(2, labels=1)
    pixels = bcm.generate(2, labels=1, output_type="uint8")
    pictures = bcm.generate(2, labels=1, output_type="pil")
    assert floats.dtype == np.float32 and pixels.dtype == np.uint8
    assert_pixels_show(pixels, floats)
    assert [(type(picture), picture.mode, picture.size) for picture in pictures] == [
        (Image.Image, "L", (8, 8))
    ] * 2
    assert_pixels_agree(np.stack([np.asarray(picture) for picture in pictures]), pixels[:, 0])


def test_every_task_returns_pictures(bcm: BCM):
    images = bcm.generate(2, labels=1)
    small = images.reshape(2, 1, 4, 2, 4, 2).mean(axis=(3, 5))
    results = [
        bcm.reconstruct(images, labels=1, output_type="pil"),
        bcm.inpaint(images, np.eye(8), labels=1, output_type="pil"),
        bcm.upscale(small, labels=1, output_type="pil"),
        bcm.restore(images, labels=1, output_type="pil"),
    ]
    for pictures in results:
        assert [picture.size for picture in pictures] == [(8, 8)] * 2
    frames = bcm.interpolate(images, images, frames=3, labels=1, output_type="pil")
    assert [[picture.size for picture in way] for way in frames] == [[(8, 8)] * 3] * 2
    varied = bcm.variations(images, 3, labels=1, output_type="pil")
    assert [[picture.size for picture in way] for way in varied] == [[(8, 8)] * 3] * 2
    pixels = bcm.restore(images, labels=1, output_type="uint8")
    assert_pixels_agree(np.asarray(results[3][1]), pixels[1, 0])


def test_unknown_output_type_is_refused(bcm: BCM):
    wrong: Any = "PIL"
    with pytest.raises(InputError, match=r"^output_type must be one of 'float', 'uint8', 'pil', not 'PIL'$"):
        bcm.generate(labels=1, output_type=wrong)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"n": 2}, "class-conditional"),
        ({"n": 2, "labels": 10}, "label 10 is out of range"),
        ({"n": 2, "labels": -1}, "label -1 is out of range"),
        ({"n": 2, "labels": [1, 2, 3]}, "3 labels were given for 2 images"),
        ({"n": 2, "labels": 1.5}, "must be integers"),
        ({"n": 2, "labels": 1, "seed": [1]}, "1 seeds were given for 2 images"),
        ({"n": 2, "labels": 1, "seed": -1}, r"seeds must lie in \[0, 2\*\*64\), got -1"),
        ({"n": 2, "labels": 1, "schedule": "nope"}, "no schedule 'nope'"),
        ({"n": 2, "labels": 1, "schedule": "invert-2"}, "starts from an image"),
        ({"labels": 1, "latents": np.zeros((1, 3, 8, 8), np.float32)}, r"latents have shape \[1, 3, 8, 8\]"),
        ({"labels": 1, "latents": np.full((1, 1, 8, 8), np.nan, np.float32)}, "NaN"),
        ({"n": 0, "labels": 1}, "at least 1"),
    ],
)
def test_generate_refuses_invalid_arguments(bcm: BCM, arguments: dict[str, Any], problem: str):
    with pytest.raises(BcmError, match=problem):
        bcm.generate(**arguments)


def test_images_out_of_range_are_refused(bcm: BCM):
    with pytest.raises(BcmError, match=r"must lie in \[-1, 1\]; these go from 255 to 255"):
        bcm.invert(np.full((1, 1, 8, 8), 255, np.float32), labels=1)
    with pytest.raises(BcmError, match=r"must be uint8, or floats in .-1, 1., not int64"):
        bcm.invert(np.zeros((1, 1, 8, 8), np.int64), labels=1)


def test_uint8_images_are_accepted(bcm: BCM):
    pixels = bcm.generate(2, labels=1, output_type="uint8")
    assert_images_agree(bcm.invert(pixels, labels=1), bcm.invert(from_uint8(pixels), labels=1))
    with pytest.raises(BcmError, match="latents must be floats, not uint8"):
        bcm.generate(latents=pixels, labels=1)


def test_null_backend_runs_no_network(digits_bundle: Path):
    with bcm_edge.load(digits_bundle, backend="null") as bcm:
        image = np.full((2, 1, 8, 8), -0.25, np.float32)
        noise_added = bcm.invert(image, inversion="+0.07 0.07>80", labels=1) * 80 - image
        assert 0.04 < noise_added.std() < 0.1


def test_unknown_backend(digits_bundle: Path):
    with pytest.raises(
        BcmError, match="unknown backend 'cuda'; choose auto, tensorrt, onnxruntime-cuda, onnxruntime-"
    ):
        bcm_edge.load(digits_bundle, backend="cuda")
