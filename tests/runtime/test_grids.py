"""Pictures of several images with labels, and pictures of one image that are read again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from grid_pixels import enlarged, find
from PIL import Image
from PIL.GifImagePlugin import GifImageFile
from PIL.PngImagePlugin import PngImageFile, PngInfo

from bcm_edge import read_images
from bcm_edge.runtime.pictures.animation import save_animation
from bcm_edge.runtime.pictures.grids import Grid, labelled_grid, pairs, rows_of
from bcm_edge.runtime.pictures.images import read_image_set
from bcm_edge.runtime.pictures.writing import save_images
from bcm_edge.runtime.pixels import from_uint8, to_uint8

RANDOM = np.random.default_rng(0)


def images(*shape: int) -> np.ndarray:
    return from_uint8(RANDOM.integers(0, 256, shape, np.uint8))


@pytest.mark.parametrize(("side", "factor"), [(8, 16), (28, 5), (32, 4), (64, 2), (128, 1), (200, 1)])
def test_cells_have_at_least_128_pixels_and_repeat_the_pixels_of_the_images(side: int, factor: int):
    pair = images(2, 1, side, side)
    sheet = labelled_grid(Grid(rows_of(pair, 2)))
    (top, left), (top_2, left_2) = (find(enlarged(image, factor), sheet) for image in pair)
    assert top == top_2 and side * factor < left_2 - left <= side * factor + 10


def test_labels_are_above_and_beside_the_images_and_do_not_cover_them():
    four = images(4, 3, 8, 8)
    plain = labelled_grid(Grid(rows_of(four, 2)))
    sheet = labelled_grid(Grid(rows_of(four, 2), "one-step: 1 NFE", ["input", "output"], ["noto", "fluent"]))
    places = [find(enlarged(image, 16), sheet) for image in four]
    assert places[0][0] == places[1][0] < places[2][0] and places[0][1] == places[2][1] < places[1][1]
    top, left = places[0]
    assert top > find(enlarged(four[0], 16), plain)[0] and left > find(enlarged(four[0], 16), plain)[1]
    dark = np.asarray((sheet < 128).all(axis=0))
    assert dark[: top - 1].any()  # the title and the labels of columns
    assert dark[top : top + 128, : left - 1].any() and dark[places[2][0] :, : left - 1].any()


def test_unused_cells_have_the_colour_of_the_background():
    sheet = labelled_grid(Grid(rows_of(images(3, 3, 8, 8) / 2, 2)))
    assert (sheet[:, -140:, -140:] == sheet[0, 0, 0]).all()


def test_pairs_stand_together_with_a_larger_gap_after_each_pair():
    before, after = images(4, 1, 8, 8), images(4, 1, 8, 8)
    sheet = labelled_grid(Grid(pairs(before, after, 2), group=2))
    rows = [find(enlarged(image, 16), sheet)[0] for image in (before[0], after[0], before[2], after[2])]
    steps = np.diff(rows)
    assert steps[0] == steps[2] < steps[1]


def test_a_row_in_colour_makes_all_rows_coloured():
    grey, colour = images(1, 1, 8, 8), images(1, 3, 8, 8)
    sheet = labelled_grid(Grid([grey, colour]))
    assert find(enlarged(np.repeat(grey[0], 3, axis=0), 16), sheet) < find(enlarged(colour[0], 16), sheet)


@pytest.mark.parametrize("text", ["", "x" * 500, "a few words " * 50, "größe → 3 × 4", "日本語", "\n\x1b[2J"])
def test_any_text_is_a_label(text: str):
    two = images(2, 3, 8, 8)
    sheet = labelled_grid(Grid([two], text, [text], [text, text], [[text, text]]))
    assert find(enlarged(two[0], 16), sheet)[0] == find(enlarged(two[1], 16), sheet)[0]
    assert sheet.shape[1] < 600 and sheet.shape[2] < 600


def test_scale_is_the_factor_and_1_gives_the_plain_pixels_side_by_side():
    four = images(3, 1, 8, 8)
    grid = Grid(rows_of(four, 2), "title", ["a", "b"], ["c", "d"])
    find(enlarged(four[2], 3), labelled_grid(grid, 3))
    plain = labelled_grid(grid, 1)
    assert plain.shape == (1, 16, 16)
    assert (plain[:, 8:, :8] == to_uint8(four[2])).all() and (plain[:, 8:, 8:] == 255).all()


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".webp", ".tif", ".gif"])
def test_an_enlarged_image_is_read_as_it_was(tmp_path: Path, suffix: str):
    image = images(1, 1, 8, 8)
    save_images(image, tmp_path / f"one{suffix}")
    assert Image.open(tmp_path / f"one{suffix}").size == (128, 128)
    assert (read_image_set([tmp_path / f"one{suffix}"], (1, 8, 8)).images == image).all()


def test_the_text_of_a_png_says_its_own_size_to_readers_that_do_not_know_it(tmp_path: Path):
    image = images(1, 3, 8, 8)
    save_images(image, tmp_path / "one.png")
    assert (read_images(tmp_path / "one.png") == image).all()


def test_a_picture_that_was_changed_after_its_enlargement_is_read_as_any_other(tmp_path: Path):
    save_images(images(1, 1, 8, 8), tmp_path / "one.png")
    picture = Image.open(tmp_path / "one.png")
    text = PngInfo()
    text.add_text("bcm-edge", picture.info["bcm-edge"])
    picture.paste(255 - int(np.asarray(picture)[0, 0]), (0, 0, 1, 1))
    picture.save(tmp_path / "changed.png", pnginfo=text)
    assert read_images(tmp_path / "changed.png").shape == (1, 1, 128, 128)


@pytest.mark.parametrize("suffix", [".gif", ".apng"])
@pytest.mark.parametrize(("scale", "size"), [(None, 256), (2, 16)])
def test_an_animation_of_one_image_has_at_least_256_pixels(
    tmp_path: Path, suffix: str, scale: int | None, size: int
):
    save_animation(images(3, 1, 1, 8, 8), tmp_path / f"way{suffix}", scale=scale)
    with Image.open(tmp_path / f"way{suffix}") as animation:
        assert isinstance(animation, GifImageFile | PngImageFile)
        assert animation.size == (size, size) and animation.n_frames == 4


def test_frames_of_several_images_are_grids_of_large_cells(tmp_path: Path):
    save_animation(images(2, 4, 1, 8, 8), tmp_path / "way.gif")
    width, height = Image.open(tmp_path / "way.gif").size
    assert width == height > 256
