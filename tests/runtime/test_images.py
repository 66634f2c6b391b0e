"""Reading and writing images: values, layouts, sizes, and the reconstruction error of the authors."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bcm_edge import BcmError
from bcm_edge.runtime.pictures.images import images_from_array, read_image_set
from bcm_edge.runtime.pictures.writing import save_images
from bcm_edge.runtime.pixels import from_uint8, mean_squared_error, to_uint8


def test_pixels_round_trip_through_floats():
    pixels = np.arange(256, dtype=np.uint8)
    assert (to_uint8(from_uint8(pixels)) == pixels).all()
    assert from_uint8(pixels)[[0, 255]].tolist() == [-1, 1]
    assert to_uint8(np.array([-7.0, 7.0, 0.0])).tolist() == [0, 255, 128]


def test_array_layouts_agree():
    pixels = np.random.default_rng(0).integers(0, 256, (4, 5, 6, 3), dtype=np.uint8)  # N, H, W, C
    expected = from_uint8(pixels.transpose(0, 3, 1, 2))
    assert (images_from_array(pixels, "x") == expected).all()
    assert (images_from_array(pixels.transpose(0, 3, 1, 2), "x") == expected).all()
    assert (images_from_array(expected.astype(np.float64), "x") == expected).all()
    assert images_from_array(pixels[..., 0], "x").shape == (4, 1, 5, 6)


def test_mean_squared_error_is_of_uint8_pixels_in_0_to_1():
    black, white = np.full((1, 1, 2, 2), -1.0), np.full((1, 1, 2, 2), 1.0)
    half = np.concatenate([black, white], axis=3)
    assert mean_squared_error(np.concatenate([black, black], axis=3), half).tolist() == [0.5]
    assert mean_squared_error(black, black + 0.003).tolist() == [0]  # less than half a grey level


def test_large_image_is_cropped_to_its_centre_and_resized(tmp_path: Path):
    picture = np.zeros((32, 96), np.uint8)
    picture[:, 32:64] = 255  # a square crop contains the middle third
    Image.fromarray(picture).save(tmp_path / "wide.png")
    image = read_image_set([tmp_path / "wide.png"], (3, 8, 8)).images[0]
    # Bicubic interpolation reaches one pixel beyond the crop.
    assert image.shape == (3, 8, 8) and image.min() > 0.8


def test_16_bit_grey_keeps_its_brightness(tmp_path: Path):
    Image.fromarray(np.full((8, 8), 32896, np.uint16)).save(tmp_path / "deep.png")
    image = read_image_set([tmp_path / "deep.png"], (1, 8, 8)).images
    assert np.allclose(image, from_uint8(np.array(128, np.uint8)))


@pytest.mark.parametrize(
    ("name", "problem"), [("out.xyz", "cannot write .xyz files"), ("out.npz", "exists already")]
)
def test_outputs_that_cannot_be_written(tmp_path: Path, name: str, problem: str):
    (tmp_path / "out.npz").write_text("mine")
    with pytest.raises(BcmError, match=re.escape(problem)):
        save_images(np.zeros((1, 1, 8, 8)), tmp_path / name)


def test_two_channels_cannot_be_written(tmp_path: Path):
    with pytest.raises(BcmError, match="2 channels cannot be written as pictures"):
        save_images(np.zeros((1, 2, 8, 8)), tmp_path / "out.png")
    assert list(tmp_path.iterdir()) == []
