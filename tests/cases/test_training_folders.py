"""Folders of training images: which folders are classes, and the size and colour of the images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from animals import ANIMALS, classes, picture
from fixture_types import Cli
from refusals import refusal

from bcm_edge.errors import ImageError, InputError
from bcm_edge.model.checkpoint import load_checkpoint
from bcm_edge.runtime.pictures.folders import SUFFIXES
from bcm_edge.runtime.storage.manifest import ModelFacts
from bcm_edge.training.data import load_dataset

ANIMAL = ModelFacts("animals", (3, 16, 16), 4, 0, {}, ANIMALS)
NAMELESS = replace(ANIMAL, classes=None)


# Classes


@pytest.mark.parametrize(
    "left_behind",
    [
        ".ipynb_checkpoints",
        ".thumbnails",
        ".git",
        "@eaDir",
        "__MACOSX",
        "$RECYCLE.BIN",
        "System Volume Information",
        "lost+found",
    ],
)
def test_system_folders_are_not_classes(tmp_path: Path, left_behind: str):
    classes(tmp_path, ["cat", "dog", "fox"])
    picture(tmp_path / left_behind / "1.png")
    data = load_dataset(str(tmp_path))
    assert data.classes == ("cat", "dog", "fox")
    assert data.labels is not None and data.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert data.notes == ()


def test_hidden_files_in_a_class_are_ignored(tmp_path: Path):
    classes(tmp_path, ["cat", "dog"])
    for name in ("._cat0.png", ".DS_Store", "Thumbs.db"):
        (tmp_path / "cat" / name).write_bytes(b"\0\5\x16\7")
    assert len(load_dataset(str(tmp_path))) == 4


def test_training_prints_and_stores_the_classes(train: Cli, tmp_path: Path):
    data = classes(tmp_path / "animals", ["cat", "fox"])
    (tmp_path / "animals" / "dog").mkdir()
    picture(tmp_path / "animals" / ".ipynb_checkpoints" / "1.png")
    result = train(data)
    assert result.stderr.startswith(
        "data: 4 images of 3×16×16 from animals\nclasses: 0 cat (2), 1 dog (0), 2 fox (2)\n"
    )
    assert "\nnote: animals: no images of these classes: 1 dog\n" in result.stderr
    checkpoint = load_checkpoint(tmp_path / "out.safetensors")
    assert (checkpoint.classes, checkpoint.config.num_classes) == (("cat", "dog", "fox"), 3)


def test_folders_whose_names_are_numbers_are_sorted_by_value(tmp_path: Path):
    data = load_dataset(classes(tmp_path, [str(number) for number in range(11)], 1))
    assert data.classes == tuple(map(str, range(11)))
    assert data.summary()[1] == f"classes: {', '.join(f'{number} (1)' for number in range(11))}"


def test_long_list_of_classes_is_shortened(tmp_path: Path):
    data = load_dataset(classes(tmp_path, [f"n{number:03}" for number in range(300)], 1, size=(2, 2)))
    assert data.summary()[1] == (
        "classes: 0 n000 (1), 1 n001 (1), 2 n002 (1), 3 n003 (1), 4 n004 (1), "
        "5 n005 (1), 6 n006 (1), 7 n007 (1), 8 n008 (1), 9 n009 (1), … 299 n299 (1)"
    )


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["c\nat", "dog"], "cannot be printed"),
        (["cat", "cat "], "two classes have the name 'cat'"),
        (["é", "e\u0301"], "two classes"),
    ],
)
def test_folder_names_that_are_not_valid_class_names(
    train: Cli, tmp_path: Path, names: list[str], message: str
):
    error = refusal(train(classes(tmp_path / "data", names)))
    assert message in error and error.endswith("rename them")


def test_folders_without_images_beside_images_are_not_classes(tmp_path: Path):
    picture(tmp_path / "a.png")
    (tmp_path / "backup").mkdir()
    data = load_dataset(str(tmp_path))
    assert (data.labels, data.classes) == (None, None)
    assert data.notes == (f"{tmp_path.name}: sub-folders without images are ignored: backup",)


def test_message_names_the_subfolders_with_images(train: Cli, tmp_path: Path):
    classes(tmp_path / "data" / "train", ["cat"])
    message = refusal(train(tmp_path / "data"))
    assert message.endswith(
        f"there are some in {tmp_path}/data/train/cat: give {tmp_path}/data/train, "
        "or move them up by one folder"
    )


def test_unreadable_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(path: Path) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(ImageError, match=r"cannot be read \(Permission denied\)"):
        load_dataset(str(tmp_path))


# Size and colour


def test_colour_if_most_images_have_colour(tmp_path: Path):
    picture(tmp_path / "0.png", mode="L")
    for number in range(1, 6):
        picture(tmp_path / f"{number}.png")
    data = load_dataset(str(tmp_path))
    assert data.images.shape == (6, 3, 16, 16)
    assert (data.images[1:, 0] - data.images[1:, 1]).min() > 0.3  # the five colour images keep their red
    assert data.notes == (f"{tmp_path.name}: 6 images: 1 converted from grey to colour",)


def test_grey_if_most_images_are_grey_and_colour_in_a_tie(tmp_path: Path):
    for number, mode in enumerate(("RGB", "L", "LA", "1")):
        picture(tmp_path / "grey" / f"{number}.png", mode=mode)
    for number, mode in enumerate(("L", "L", "RGB", "P")):
        picture(tmp_path / "tie" / f"{number}.png", mode=mode)
    grey, tie = load_dataset(str(tmp_path / "grey")), load_dataset(str(tmp_path / "tie"))
    assert (grey.images.shape[1], tie.images.shape[1]) == (1, 3)
    assert grey.notes == ("grey: 4 images: 1 converted from colour to grey",)
    assert tie.notes == ("tie: 4 images: 2 converted from grey to colour",)


def test_model_determines_size_and_colour(tmp_path: Path):
    for number in range(3):
        picture(tmp_path / "grey" / f"{number}.png", (20, 24), "L")
    data = load_dataset(str(tmp_path / "grey"), model=replace(ANIMAL, num_classes=None))
    assert data.images.shape == (3, 3, 16, 16)
    assert data.notes == ("grey: 3 images: 3 converted from grey to colour, 3 cropped or resized to 16×16",)


def test_images_of_one_pixel_are_left_out(tmp_path: Path):
    picture(tmp_path / "0.png", (1, 1))
    picture(tmp_path / "1.png", (1, 40))
    for number in range(2, 7):
        picture(tmp_path / f"{number}.png")
    data = load_dataset(str(tmp_path))
    assert data.images.shape == (5, 3, 16, 16)
    assert data.notes == (f"{tmp_path.name}: 2 images with a side of 1 pixel left out: 0.png, 1.png",)


def test_folder_with_only_images_of_one_pixel_is_refused(train: Cli, tmp_path: Path):
    picture(tmp_path / "data" / "0.png", (1, 1))
    assert refusal(train(tmp_path / "data")).endswith("data: all of its images have a side of 1 pixel")


@pytest.mark.parametrize("sizes", [(16, 20, 24, 30, 40), (16, 16, 24, 24), (16, 16, 24, 30, 40)])
def test_images_of_many_sizes_need_the_option_image_size(train: Cli, tmp_path: Path, sizes: tuple[int, ...]):
    for number, size in enumerate(sizes):
        picture(tmp_path / "data" / f"{number}.png", (size, size + 2))
    message = refusal(train(tmp_path / "data"))
    assert message.endswith(
        f"images of many sizes (shorter sides of 16 to {max(sizes)} pixels); "
        "give the size to resize them to, for example --image-size 64"
    )
    assert load_dataset(str(tmp_path / "data"), 16).images.shape[2] == 16


def test_size_that_half_of_the_images_have_is_taken(tmp_path: Path):
    for number, size in enumerate((40, 16, 16, 16, 20, 50)):
        picture(tmp_path / f"{number}.png", (size, size))
    assert load_dataset(str(tmp_path)).images.shape[2] == 16


def test_files_that_are_not_images_are_counted(tmp_path: Path):
    classes(tmp_path / "data", ["cat"])
    picture(tmp_path / "data" / "cat" / "UPPER.PNG")
    picture(tmp_path / "data" / "cat" / "old.jpg").rename(tmp_path / "data" / "cat" / "old.jfif")
    (tmp_path / "data" / "cat" / "notes.txt").write_text("x")
    (tmp_path / "data" / "labels.csv").write_text("x")
    data = load_dataset(str(tmp_path / "data"))
    assert len(data) == 4
    assert data.notes == ("data: skipped 2 files that are not images (1 .txt, 1 .csv)",)


def test_unreadable_image_is_named(train: Cli, tmp_path: Path):
    data = classes(tmp_path / "data", ["cat"])
    (tmp_path / "data" / "cat" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n123")
    assert refusal(train(data)).startswith(f"{data}/cat/broken.png: not a readable image")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_suffix_is_found(tmp_path: Path, suffix: str):
    (tmp_path / f"x{suffix.upper()}").write_bytes(b"no image")
    with pytest.raises(ImageError, match="not a readable image"):
        load_dataset(str(tmp_path))


# Memory


def test_images_that_do_not_fit_into_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("bcm_edge.runtime.machine.resources.available_memory", lambda: 10_000)
    data = classes(tmp_path / "data", ["cat"], 4)
    with pytest.raises(InputError) as caught:
        load_dataset(data)
    assert str(caught.value) == (
        f"{data}: 4 images of 3×16×16 would take 0.0123 MB of memory, and 0.01 MB are available; "
        "give a smaller --image-size, or fewer images"
    )
    np.savez(tmp_path / "data.npz", images=np.zeros((40, 16, 16), np.uint8))
    with pytest.raises(InputError, match=r"data\.npz: its (arrays|images as float32) would take"):
        load_dataset(str(tmp_path / "data.npz"))


def test_training_step_that_does_not_fit_into_memory(train: Cli, tmp_path: Path):
    data = classes(tmp_path / "data", ["cat"])
    message = refusal(train(data, "--image-size", "100000"))
    assert message.startswith(
        "a training step of 2 images of 100000×100000 pixels with 8 channels would take 16 TB of memory, and "
    )
    assert message.endswith(" are available; give a smaller --image-size, --batch or --channels")
