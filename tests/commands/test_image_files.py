"""Pictures that a command reads: size, colours, transparency, 16 bits and folders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from archives import read_npz
from fixture_types import Cli
from PIL import Image
from refusals import edit_manifest


def converted(cli: Cli, bundle: Path, picture: Image.Image, folder: Path) -> np.ndarray:
    """Return the input of the network for a picture: float32 [C, H, W]."""
    picture.save(folder / "in.png")
    return originals(cli, bundle, folder / "in.png", "3", folder / "out.npz")[0]


def originals(cli: Cli, bundle: Path, images: Path, labels: str, output: Path) -> np.ndarray:
    """Return what `reconstruct` reads from a picture or folder: float32 [N, C, H, W]."""
    result = cli("reconstruct", bundle, images, "--label", labels, "--backend", "null", "-o", output)
    assert result.exit_code == 0, result.stderr
    return read_npz(output)["originals"]


def test_image_that_is_not_square_is_cropped_to_its_middle(digits_bundle: Path, cli: Cli, tmp_path: Path):
    pixels = np.full((8, 20), 255, np.uint8)
    pixels[:, 6:14] = np.arange(64).reshape(8, 8)
    image = converted(cli, digits_bundle, Image.fromarray(pixels), tmp_path)
    np.testing.assert_allclose(image[0], np.arange(64).reshape(8, 8) / 127.5 - 1, atol=1e-6)


def test_image_of_another_size_is_resized_with_antialiasing(digits_bundle: Path, cli: Cli, tmp_path: Path):
    checkerboard = np.indices((64, 64)).sum(axis=0) % 2 * 255
    image = converted(cli, digits_bundle, Image.fromarray(checkerboard.astype(np.uint8)), tmp_path)
    assert image.shape == (1, 8, 8)
    assert (
        np.abs(image).max() < 0.05
    )  # the average of black and white is grey; nearest neighbours would be ±1


def test_colour_image_becomes_grey_for_a_grey_model(digits_bundle: Path, cli: Cli, tmp_path: Path):
    image = converted(cli, digits_bundle, Image.new("RGB", (8, 8), (255, 0, 0)), tmp_path)
    np.testing.assert_allclose(image, 76 / 127.5 - 1, atol=1e-6)  # 0.299 · 255


def test_grey_image_becomes_colour_for_a_colour_model(bundle_copy: Path, cli: Cli, tmp_path: Path):
    edit_manifest(bundle_copy, lambda manifest: manifest["model"].update(sample_shape=[3, 8, 8]))
    image = converted(cli, bundle_copy, Image.new("L", (8, 8), 51), tmp_path)
    assert image.shape == (3, 8, 8)
    np.testing.assert_allclose(image, -0.6, atol=1e-6)


def test_transparent_pixels_become_white(digits_bundle: Path, cli: Cli, tmp_path: Path):
    image = converted(cli, digits_bundle, Image.new("RGBA", (8, 8), (0, 0, 0, 0)), tmp_path)
    assert (image == 1).all()


def test_sixteen_bit_image_keeps_its_range(digits_bundle: Path, cli: Cli, tmp_path: Path):
    image = converted(cli, digits_bundle, Image.fromarray(np.full((8, 8), 51 * 257, np.uint16)), tmp_path)
    np.testing.assert_allclose(image, -0.6, atol=1e-6)


def test_folder_of_images_is_read_in_the_order_of_names(digits_bundle: Path, cli: Cli, tmp_path: Path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, grey in (("b.png", 255), ("a.jpg", 0), ("c.bmp", 51)):
        Image.new("L", (8, 8), grey).save(folder / name)
    (folder / "notes.txt").write_text("not an image")
    images = originals(cli, digits_bundle, folder, "1,2,3", tmp_path / "out.npz")
    np.testing.assert_allclose(images[:, 0, 0, 0], [-1, 1, -0.6], atol=1e-6)
