"""The nearest training images of samples, beside those of held-out images."""

from __future__ import annotations

import numpy as np
import pytest

from bcm_edge.evaluation.memorised import Neighbours, compared, copies


class Means:
    """Features of an image: the means of its channels."""

    name = "means"

    def features(self, images: np.ndarray) -> np.ndarray:
        return images.mean(axis=(2, 3))


@pytest.fixture(scope="module")
def train() -> np.ndarray:
    """Three images of random pixels."""
    pixels = np.random.default_rng(0).integers(0, 256, (3, 3, 8, 8))
    return (pixels / 127.5 - 1).astype(np.float32)


def test_copies_are_mirrored_and_shifted_by_up_to_one_pixel(train: np.ndarray):
    copied = copies(train)
    assert copied.shape == (54, 3, 8, 8)
    everything = {image.tobytes() for image in copied}
    assert len(everything) == 54
    assert train[1].tobytes() in everything
    assert np.ascontiguousarray(train[1, :, :, ::-1]).tobytes() in everything
    right = np.concatenate([train[1, :, :, :1], train[1, :, :, :-1]], axis=2)  # the border is repeated
    assert np.ascontiguousarray(right).tobytes() in everything


def test_copy_of_a_training_image_has_no_distance(train: np.ndarray):
    mirrored_and_up = np.concatenate([train[2:, :, 1:], train[2:, :, -1:]], axis=2)[..., ::-1]
    nearest = Neighbours(train, Means()).in_pixels(mirrored_and_up)
    assert nearest.distances.tolist() == pytest.approx([0], abs=1e-6)
    np.testing.assert_array_equal(nearest.images, mirrored_and_up)


def test_distance_in_pixels_is_the_root_mean_squared_error():
    black = np.full((1, 3, 8, 8), -1, np.float32)
    quarter = black.copy()
    quarter[:, :, :, :2] = 1  # a fourth of the pixels differ by 1
    nearest = Neighbours(black, Means()).in_pixels(quarter)
    assert nearest.distances.tolist() == pytest.approx([0.5])


def test_distance_in_features_is_euclidean():
    train = np.zeros((2, 3, 8, 8), np.float32)
    train[1] = 1
    image = np.zeros((1, 3, 8, 8), np.float32)
    image[0, 0], image[0, 1] = 0.3, 0.4
    nearest = Neighbours(train, Means()).in_features(image)
    assert nearest.distances.tolist() == pytest.approx([0.5])
    np.testing.assert_array_equal(nearest.images, train[:1])


def test_share_of_samples_that_are_closer_than_held_out_images():
    values = compared(np.array([0.0, 0.01, 0.5, 0.9]), np.linspace(0.1, 1.1, 21))
    assert values["close"] == 0.5
    assert values["samples"]["least"] == 0
    assert values["samples"]["median"] == pytest.approx(0.255)
    assert values["held_out"]["low"] == pytest.approx(0.15)
    assert values["held_out"]["median"] == pytest.approx(0.6)
