"""The public API on a real bundle: shapes, ranges, seeds, labels, batches."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from agreement import assert_images_agree

import bcm_edge
from bcm_edge import BCM, BcmError
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
    calls = []
    bcm.generate(
        20, schedule="ancestral-2", labels=0, on_move=lambda i, move, state: calls.append((i, len(state)))
    )
    assert calls == [(0, 16), (1, 16), (0, 4), (1, 4)]


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
    pixels = bcm.generate(2, labels=1, uint8=True)
    assert np.array_equal(bcm.invert(pixels, labels=1), bcm.invert(from_uint8(pixels), labels=1))
    with pytest.raises(BcmError, match="latents must be floats, not uint8"):
        bcm.generate(latents=pixels, labels=1)


def test_null_backend_runs_no_network(digits_bundle: Path):
    with bcm_edge.load(digits_bundle, backend="null") as bcm:
        image = np.full((2, 1, 8, 8), -0.25, np.float32)
        noise_added = bcm.invert(image, inversion="+0.07 0.07>80", labels=1) * 80 - image
        assert 0.04 < noise_added.std() < 0.1


def test_unknown_backend(digits_bundle: Path):
    with pytest.raises(
        BcmError, match="unknown backend 'cuda'; choose auto, tensorrt, onnxruntime, openvino, typed, null"
    ):
        bcm_edge.load(digits_bundle, backend="cuda")
