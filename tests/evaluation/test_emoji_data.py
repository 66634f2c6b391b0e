"""The drawings that the emoji model is trained and measured on, and those in the package."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fixture_types import ROOT

from bcm_edge.errors import ImageError, InputError
from bcm_edge.evaluation.emoji_data import SHIPPED_NAMES, few, held_out_names, read_drawings, shrunk
from bcm_edge.runtime.storage.shipped import shipped_drawings
from bcm_edge.training.data import load_dataset


def drawings(path: Path) -> Path:
    """A file of 25 names in three styles, but the first name in one style only. Two categories take turns."""
    names = np.repeat([f"name-{number:02d}" for number in range(25)], 3)[2:]
    images = np.zeros((73, 3, 64, 64), np.uint8)
    images[:, 0, 0, 0] = np.arange(73)
    arrays = {
        "images": images,
        "labels": np.tile([0, 1, 2], 25)[2:],
        "label_names": np.array(["fluent", "noto", "twemoji"]),
        "names": names,
        "categories": (np.arange(25) % 2).repeat(3)[2:],
        "category_names": np.array(["Faces", "Food"]),
    }
    np.savez(path, **arrays)
    return path


def test_every_tenth_name_is_held_out_with_all_its_drawings(tmp_path: Path):
    train, test = read_drawings(drawings(tmp_path / "all.npz"), ["Faces", "Food"])
    assert test["names"].tolist() == ["name-01"] * 3 + ["name-11"] * 3 + ["name-21"] * 3
    assert test["labels"].tolist() == [0, 1, 2] * 3
    assert len(train["names"]) == 64
    assert not set(train["names"]) & set(test["names"])
    assert train["names"][0] == "name-00"  # drawn in one style, therefore never held out
    assert train["classes"].tolist() == ["fluent", "noto", "twemoji"]


def test_categories_are_selected_after_names_are_held_out(tmp_path: Path):
    path = drawings(tmp_path / "all.npz")
    train, test = read_drawings(path, ["Food"])
    assert sorted(set(test["names"])) == ["name-01", "name-11", "name-21"]
    assert len(train["names"]) == 27
    train, test = read_drawings(path, ["Faces"])
    assert len(test["names"]) == 0
    assert len(train["names"]) == 37


def test_order_of_the_file_does_not_change_what_is_held_out():
    names, styles = np.array(["b", "a", "b", "a", "c"]), np.array([0, 1, 1, 0, 0])
    assert held_out_names(names, styles) == ["a"]
    assert held_out_names(names[::-1], styles[::-1]) == ["a"]


def test_shrinking_takes_the_mean_of_squares():
    image = np.array([[0, 0, 255, 255], [0, 10, 255, 251], [8, 8, 1, 2], [8, 8, 2, 2]], np.uint8)
    np.testing.assert_array_equal(shrunk(image[None, None])[0, 0], [[2, 254], [8, 2]])


def test_unknown_category_and_missing_array(tmp_path: Path):
    path = drawings(tmp_path / "all.npz")
    with pytest.raises(InputError, match=r"no category 'Drinks'; it has Faces, Food"):
        read_drawings(path, ["Drinks"])
    np.savez(tmp_path / "images.npz", images=np.zeros((2, 3, 64, 64), np.uint8))
    with pytest.raises(ImageError, match="has no array `names`"):
        read_drawings(tmp_path / "images.npz")


def test_drawings_in_the_package_are_eight_names_in_three_styles():
    with np.load(shipped_drawings()) as file:
        assert file["images"].dtype == np.uint8
        assert file["images"].shape == (24, 3, 32, 32)
        assert file["labels"].tolist() == [0] * 8 + [1] * 8 + [2] * 8
        assert file["names"].tolist() == list(SHIPPED_NAMES) * 3
    data = load_dataset(str(shipped_drawings()))
    assert data.classes == ("fluent", "noto", "twemoji")


def test_drawings_in_the_package_are_held_out_ones():
    source = ROOT.parent / "shared" / "data" / "emoji64.npz"
    if not source.is_file():
        pytest.skip("the emoji (shared/data/emoji64.npz) are not beside this checkout")
    train, test = read_drawings(source)
    assert (len(train["names"]), len(test["names"])) == (449, 63)
    shipped = few(test)
    with np.load(shipped_drawings()) as file:
        for name, array in shipped.items():
            np.testing.assert_array_equal(file[name], array)
    assert not set(train["names"]) & set(SHIPPED_NAMES)
