"""Data sets for training: the digits, folders of pictures, and npz files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from archives import write_npz
from PIL import Image

from bcm_edge.errors import ImageError, LabelError
from bcm_edge.training.data import load_dataset, load_digits


def test_parts_of_the_digits_share_no_image_and_have_even_classes():
    parts = {name: load_digits(name) for name in ("train", "validation", "test")}
    assert [len(p) for p in parts.values()] == [1257, 180, 360]
    for part in parts.values():
        assert part.labels is not None
        assert part.images.shape[1:] == (1, 8, 8)
        assert (part.images.min(), part.images.max()) == (-1, 1)
        shares = torch.bincount(part.labels).float() / len(part)
        assert shares.min() > 0.09
        assert shares.max() < 0.11
    rows = torch.cat([p.images.flatten(1) for p in parts.values()])
    assert len(rows.unique(dim=0)) == 1797


def test_sub_folders_are_classes(tmp_path: Path):
    for label, name in enumerate(("cat", "dog")):
        (tmp_path / name).mkdir()
        for i in range(2 + label):
            Image.new("RGB", (10, 8), (255 * label, 0, 0)).save(tmp_path / name / f"{i}.png")
    (tmp_path / "notes").mkdir()  # a folder without images is still a class
    data = load_dataset(str(tmp_path))
    assert data.labels is not None
    assert (data.labels.tolist(), data.num_classes) == ([0, 0, 1, 1, 1], 3)
    assert data.images.shape == (5, 3, 8, 8)
    assert data.images[:, 0, 0, 0].tolist() == [-1, -1, 1, 1, 1]
    assert load_dataset(str(tmp_path), image_size=4).images.shape == (5, 3, 4, 4)


def test_folder_of_pictures_has_no_classes(tmp_path: Path):
    Image.new("L", (8, 8), 255).save(tmp_path / "a.png")
    data = load_dataset(str(tmp_path))
    assert data.labels is None
    assert data.images.shape == (1, 1, 8, 8)
    assert data.num_classes is None


def test_npz_images_may_have_three_layouts(tmp_path: Path):
    grey = np.array([[[0, 255], [255, 0]]], np.uint8)
    cases = {"grey": grey, "channel": grey[..., None], "float": grey[:, None].astype(np.float64) / 127.5 - 1}
    for name, images in cases.items():
        np.savez(tmp_path / f"{name}.npz", images=images)
        assert load_dataset(str(tmp_path / f"{name}.npz")).images.tolist() == [[[[-1, 1], [1, -1]]]]


@pytest.mark.parametrize(
    ("arrays", "error", "message"),
    [
        ({"pictures": np.zeros((2, 4, 4), np.uint8)}, ImageError, "no array `images`"),
        ({"images": np.zeros((0, 4, 4), np.uint8)}, ImageError, "shape"),
        ({"images": np.zeros((2, 4, 6), np.uint8)}, ImageError, "square"),
        ({"images": np.full((2, 1, 4, 4), 3.0)}, ImageError, r"\[-1, 1\]"),
        ({"images": np.full((2, 1, 4, 4), np.nan)}, ImageError, "NaN"),
        ({"images": np.zeros((2, 4, 4), np.uint8), "labels": np.zeros(3, np.int64)}, LabelError, "2 images"),
        ({"images": np.zeros((2, 4, 4), np.uint8), "labels": np.zeros(2)}, LabelError, "integers"),
        ({"images": np.zeros((2, 4, 4), np.uint8), "labels": np.array([0, -1])}, LabelError, "-1"),
        ({"images": np.zeros((2, 4, 4), np.uint8), "labels": np.array([0, 10**9])}, LabelError, "1000000000"),
        ({"images": np.array([{}, {}])}, ImageError, "npz"),
    ],
)
def test_wrong_npz_is_refused_by_name(
    tmp_path: Path, arrays: dict[str, np.ndarray], error: type[Exception], message: str
):
    write_npz(tmp_path / "x.npz", arrays)
    with pytest.raises(error, match=message) as caught:
        load_dataset(str(tmp_path / "x.npz"))
    assert "\n" not in str(caught.value)
    assert "x.npz" in str(caught.value)


def test_wrong_folders_are_refused(tmp_path: Path):
    with pytest.raises(ImageError, match="no images"):
        load_dataset(str(tmp_path))
    (tmp_path / "b.png").write_text("not a picture")
    with pytest.raises(ImageError, match=r"b\.png"):
        load_dataset(str(tmp_path))
    (tmp_path / "class").mkdir()
    Image.new("L", (8, 8)).save(tmp_path / "class" / "a.png")
    with pytest.raises(LabelError, match=r"b\.png"):
        load_dataset(str(tmp_path))


def test_missing_data_is_refused(tmp_path: Path):
    with pytest.raises(ImageError, match="digits"):
        load_dataset("diggits")
    with pytest.raises(ImageError, match=r"gone\.npz"):
        load_dataset(str(tmp_path / "gone.npz"))
    with pytest.raises(ImageError, match="8 pixels wide, not 16"):
        load_dataset("digits", image_size=16)
