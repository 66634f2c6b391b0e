"""Folders whose sub-folders are classes: commands read their images, and the names are the labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fixture_types import Cli
from PIL import Image
from refusals import refusal

from bcm_edge.errors import ImageError, LabelError
from bcm_edge.runtime.pictures.images import read_image_set

SHAPE = (1, 8, 8)


def picture(file: Path, grey: int = 100) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (8, 8), grey).save(file)
    return file


def test_labels_are_the_names_of_the_sub_folders(tmp_path: Path):
    for file in ("10/b.png", "9/a.png", "10/a.png"):
        picture(tmp_path / file)
    images = read_image_set([tmp_path], SHAPE)
    assert images.labels is not None and images.labels.tolist() == ["9", "10", "10"]  # numbers by their value
    assert images.names == ["9/a", "10/a", "10/b"]
    assert images.note == "labels from the names of sub-folders: 9, 10"
    assert images.labels_from == str(tmp_path)
    without = read_image_set([tmp_path], SHAPE, with_labels=False)
    assert (without.labels, without.note) == (None, "")


def test_empty_system_and_hidden_sub_folders_are_no_classes(tmp_path: Path):
    picture(tmp_path / "cat" / "a.png")
    (tmp_path / "empty").mkdir()
    for name in ("@eaDir", ".thumbnails", "__MACOSX"):
        picture(tmp_path / name / "a.png")
    labels = read_image_set([tmp_path], SHAPE).labels
    assert labels is not None and labels.tolist() == ["cat"]


def test_sub_folders_beside_images_are_not_read(tmp_path: Path):
    picture(tmp_path / "a.png")
    picture(tmp_path / "out" / "b.png")
    images = read_image_set([tmp_path], SHAPE)
    assert (images.names, images.labels) == (["a"], None)
    assert images.note == f"sub-folders beside images are not read: {tmp_path}/out"


def test_deeper_folders_are_named(tmp_path: Path):
    picture(tmp_path / "train" / "cat" / "a.png")
    with pytest.raises(ImageError) as caught:
        read_image_set([tmp_path], SHAPE)
    assert str(caught.value).endswith(
        f"there are some in {tmp_path}/train/cat: give {tmp_path}/train, or move them up by one folder"
    )
    picture(tmp_path / "train" / "b.png")  # one level deep is read, two levels are not
    assert read_image_set([tmp_path], SHAPE).names == ["train/b"]


def test_several_folders(tmp_path: Path):
    picture(tmp_path / "a" / "cat" / "1.png")
    picture(tmp_path / "b" / "dog" / "2.png")
    picture(tmp_path / "c" / "3.png")
    labels = read_image_set([tmp_path / "a", tmp_path / "b"], SHAPE).labels
    assert labels is not None and labels.tolist() == ["cat", "dog"]
    with pytest.raises(LabelError, match=r"have labels, .* but those of"):
        read_image_set([tmp_path / "a", tmp_path / "c"], SHAPE)
    assert len(read_image_set([tmp_path / "a", tmp_path / "c"], SHAPE, with_labels=False).images) == 2


def test_invert_uses_the_names_as_labels(cli: Cli, digits_bundle: Path, tmp_path: Path):
    for file in ("3/a.png", "7/b.png", "7/c.png"):
        picture(tmp_path / "data" / file)
    output = tmp_path / "latents.npz"
    result = cli("invert", digits_bundle, tmp_path / "data", "-o", output)
    assert result.exit_code == 0, result.stderr
    assert "note: labels from the names of sub-folders: 3, 7\n" in result.stderr
    assert np.load(output)["labels"].tolist() == [3, 7, 7]


def test_class_names_of_the_model(cli: Cli, animals: Path, tmp_path: Path):
    picture(tmp_path / "data" / "dog" / "a.png")
    picture(tmp_path / "data" / "0" / "a.png")
    result = cli("reconstruct", animals, tmp_path / "data", "-o", tmp_path / "out.npz")
    assert result.exit_code == 0, result.stderr
    dog = np.load(tmp_path / "out.npz")["labels"].tolist()[1]
    message = refusal(
        cli("reconstruct", animals, tmp_path / "data", "--label", "dgo", "-o", tmp_path / "x.npz")
    )
    assert dog != 0 and "did you mean dog?" in message


def test_unknown_names_are_an_error_that_lists_the_classes(cli: Cli, digits_bundle: Path, tmp_path: Path):
    picture(tmp_path / "data" / "elephant" / "a.png")
    command = ("restore", digits_bundle, tmp_path / "data", "-o", tmp_path / "out.npz")
    message = refusal(cli(*command))
    assert message.startswith(f"{tmp_path}/data: ") and "'elephant'" in message
    assert message.endswith("--label replaces these labels") and "0 to 9" in message
    assert cli(*command, "--label", 4).exit_code == 0
    assert np.load(tmp_path / "out.npz")["labels"].tolist() == [4]


def test_masks_of_pictures_in_class_folders(cli: Cli, digits_bundle: Path, tmp_path: Path):
    for name, size in (("3", 2), ("5", 4)):
        image = Image.new("LA", (8, 8), (200, 255))
        image.paste((0, 0), (0, 0, size, 8))
        (tmp_path / "data" / name).mkdir(parents=True)
        image.save(tmp_path / "data" / name / "a.png")
    result = cli("inpaint", digits_bundle, tmp_path / "data", "-o", tmp_path / "out.npz", "--json")
    assert result.exit_code == 0, result.stderr
    with np.load(tmp_path / "out.npz") as arrays:
        assert arrays["labels"].tolist() == [3, 5]
        known = arrays["images"] == arrays["given"]
    assert known[0, :, :, 2:].all() and known[1, :, :, 4:].all() and not known[0, :, :, :2].all()
