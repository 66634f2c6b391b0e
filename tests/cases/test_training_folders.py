"""Data sets as people bring them: which folders are classes, which size and colour images get, and labels that fit a model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from animals import ANIMALS, animals_checkpoint
from click.testing import Result
from conftest import Cli
from networks import TINY
from PIL import Image
from refusals import refusal

from bcm_edge.errors import CheckpointError, ImageError, InputError, LabelError
from bcm_edge.evaluation.data import held_out
from bcm_edge.model.checkpoint import load_checkpoint, save_checkpoint, shipped_checkpoint
from bcm_edge.runtime.bundle import ModelFacts
from bcm_edge.runtime.pictures import SUFFIXES
from bcm_edge.training.data import load_dataset

ANIMAL = ModelFacts("animals", (3, 16, 16), 4, 0, {}, ANIMALS)
NAMELESS = replace(ANIMAL, classes=None)
QUICK = ("--steps", "1", "--batch", "2", "--channels", "8")


def picture(file: Path, size: tuple[int, int] = (16, 16), mode: str = "RGB") -> Path:
    """A noisy picture, mostly red."""
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(sum(file.name.encode())).integers(0, 100, (size[1], size[0], 3), dtype=np.uint8)
    pixels[..., 0] += 150
    Image.fromarray(pixels).convert(mode).save(file)
    return file


def classes(folder: Path, names: Sequence[str], n: int = 2, **options: Any) -> str:
    """A folder with n pictures of every class."""
    for name in names:
        for index in range(n):
            picture(folder / name / f"{name}{index}.png", **options)
    return str(folder)


@pytest.fixture
def train(cli: Cli, tmp_path: Path) -> Callable[..., Result]:
    def run(*arguments: object) -> Result:
        return cli("train", "--data", *arguments, *QUICK, "-o", tmp_path / "out.safetensors", "--force")

    return run


# ---- which folders are classes


@pytest.mark.parametrize(
    "left_behind",
    [".ipynb_checkpoints", ".thumbnails", ".git", "@eaDir", "__MACOSX", "$RECYCLE.BIN", "System Volume Information", "lost+found"],
)
def test_what_systems_leave_behind_is_no_class(tmp_path: Path, left_behind: str):
    classes(tmp_path, ["cat", "dog", "fox"])
    picture(tmp_path / left_behind / "1.png")
    data = load_dataset(str(tmp_path))
    assert data.classes == ("cat", "dog", "fox")
    assert data.labels is not None and data.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert data.notes == ()


def test_hidden_files_in_a_class_are_not_images(tmp_path: Path):
    classes(tmp_path, ["cat", "dog"])
    for name in ("._cat0.png", ".DS_Store", "Thumbs.db"):
        (tmp_path / "cat" / name).write_bytes(b"\0\5\x16\7")
    assert len(load_dataset(str(tmp_path))) == 4


def test_training_prints_and_keeps_the_classes(train: Callable[..., Result], tmp_path: Path):
    data = classes(tmp_path / "animals", ["cat", "fox"])
    (tmp_path / "animals" / "dog").mkdir()
    picture(tmp_path / "animals" / ".ipynb_checkpoints" / "1.png")
    ended = train(data)
    assert ended.stderr.startswith("data: 4 images of 3×16×16 from animals\nclasses: 0 cat (2), 1 dog (0), 2 fox (2)\n")
    assert "\nnote: animals: no images of these classes: 1 dog\n" in ended.stderr
    checkpoint = load_checkpoint(tmp_path / "out.safetensors")
    assert (checkpoint.classes, checkpoint.config.num_classes) == (("cat", "dog", "fox"), 3)


def test_folders_with_numbers_as_names_are_counted_by_value(tmp_path: Path):
    data = load_dataset(classes(tmp_path, [str(number) for number in range(11)], 1))
    assert data.classes == tuple(map(str, range(11)))
    assert data.summary()[1] == f"classes: {', '.join(f'{number} (1)' for number in range(11))}"


def test_hundreds_of_classes_are_shortened(tmp_path: Path):
    data = load_dataset(classes(tmp_path, [f"n{number:03}" for number in range(300)], 1, size=(2, 2)))
    assert data.summary()[1] == (
        "classes: 0 n000 (1), 1 n001 (1), 2 n002 (1), 3 n003 (1), 4 n004 (1), 5 n005 (1), 6 n006 (1), 7 n007 (1), 8 n008 (1), "
        "9 n009 (1), … 299 n299 (1)"
    )


@pytest.mark.parametrize(
    ("names", "message"),
    [(["c\nat", "dog"], "cannot be printed"), (["cat", "cat "], "two classes have the name 'cat'"), (["é", "e\u0301"], "two classes")],
)
def test_folders_whose_names_cannot_be_class_names(train: Callable[..., Result], tmp_path: Path, names: list[str], message: str):
    error = refusal(train(classes(tmp_path / "data", names)))
    assert message in error and error.endswith("rename them")


def test_folders_without_images_beside_images_are_no_classes(tmp_path: Path):
    picture(tmp_path / "a.png")
    (tmp_path / "backup").mkdir()
    data = load_dataset(str(tmp_path))
    assert (data.labels, data.classes) == (None, None)
    assert data.notes == (f"{tmp_path.name}: sub-folders without images are ignored: backup",)


def test_images_that_lie_deeper_are_pointed_at(train: Callable[..., Result], tmp_path: Path):
    classes(tmp_path / "data" / "train", ["cat"])
    message = refusal(train(tmp_path / "data"))
    assert message.endswith(f"there are some in {tmp_path}/data/train/cat: give {tmp_path}/data/train, or move them up by one folder")


def test_a_folder_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(path: Path) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(ImageError, match=r"cannot be read \(Permission denied\)"):
        load_dataset(str(tmp_path))


# ---- size and colour


def test_most_images_decide_for_colour(tmp_path: Path):
    picture(tmp_path / "0.png", mode="L")
    for number in range(1, 6):
        picture(tmp_path / f"{number}.png")
    data = load_dataset(str(tmp_path))
    assert data.images.shape == (6, 3, 16, 16)
    assert (data.images[1:, 0] - data.images[1:, 1]).min() > 0.3  # the five are as red as they were
    assert data.notes == (f"{tmp_path.name}: 6 images: 1 converted from grey to colour",)


def test_most_images_decide_for_grey_and_a_tie_for_colour(tmp_path: Path):
    for number, mode in enumerate(("RGB", "L", "LA", "1")):
        picture(tmp_path / "grey" / f"{number}.png", mode=mode)
    for number, mode in enumerate(("L", "L", "RGB", "P")):
        picture(tmp_path / "tie" / f"{number}.png", mode=mode)
    grey, tie = load_dataset(str(tmp_path / "grey")), load_dataset(str(tmp_path / "tie"))
    assert (grey.images.shape[1], tie.images.shape[1]) == (1, 3)
    assert grey.notes == ("grey: 4 images: 1 converted from colour to grey",)
    assert tie.notes == ("tie: 4 images: 2 converted from grey to colour",)


def test_the_model_decides_for_size_and_colour(tmp_path: Path):
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


def test_images_of_one_pixel_alone_are_refused(train: Callable[..., Result], tmp_path: Path):
    picture(tmp_path / "data" / "0.png", (1, 1))
    assert refusal(train(tmp_path / "data")).endswith("data: all of its images have a side of 1 pixel")


@pytest.mark.parametrize("sizes", [(16, 20, 24, 30, 40), (16, 16, 24, 24), (16, 16, 24, 30, 40)])
def test_images_of_many_sizes_want_a_size(train: Callable[..., Result], tmp_path: Path, sizes: tuple[int, ...]):
    for number, size in enumerate(sizes):
        picture(tmp_path / "data" / f"{number}.png", (size, size + 2))
    message = refusal(train(tmp_path / "data"))
    assert message.endswith(
        f"images of many sizes (shorter sides of 16 to {max(sizes)} pixels); say the size to resize them to, such as --image-size 64"
    )
    assert load_dataset(str(tmp_path / "data"), 16).images.shape[2] == 16


def test_half_of_the_images_decide_for_the_size(tmp_path: Path):
    for number, size in enumerate((40, 16, 16, 16, 20, 50)):
        picture(tmp_path / f"{number}.png", (size, size))
    assert load_dataset(str(tmp_path)).images.shape[2] == 16


def test_files_with_other_names_are_counted(tmp_path: Path):
    classes(tmp_path / "data", ["cat"])
    picture(tmp_path / "data" / "cat" / "UPPER.PNG")
    picture(tmp_path / "data" / "cat" / "old.jpg").rename(tmp_path / "data" / "cat" / "old.jfif")
    (tmp_path / "data" / "cat" / "notes.txt").write_text("x")
    (tmp_path / "data" / "labels.csv").write_text("x")
    data = load_dataset(str(tmp_path / "data"))
    assert len(data) == 4
    assert data.notes == ("data: skipped 2 files that are not images (1 .txt, 1 .csv)",)


def test_an_unreadable_image_is_named(train: Callable[..., Result], tmp_path: Path):
    data = classes(tmp_path / "data", ["cat"])
    (tmp_path / "data" / "cat" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n123")
    assert refusal(train(data)).startswith(f"{data}/cat/broken.png: not a readable image")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_suffix_is_found(tmp_path: Path, suffix: str):
    (tmp_path / f"x{suffix.upper()}").write_bytes(b"no image")
    with pytest.raises(ImageError, match="not a readable image"):
        load_dataset(str(tmp_path))


# ---- memory


def test_images_that_do_not_fit_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("bcm_edge.runtime.resources.available_memory", lambda: 10_000)
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


def test_a_step_that_does_not_fit_in_memory(train: Callable[..., Result], tmp_path: Path):
    data = classes(tmp_path / "data", ["cat"])
    message = refusal(train(data, "--image-size", "100000"))
    assert message.startswith("a training step of 2 images of 100000×100000 pixels with 8 channels would take 16 TB of memory, and ")
    assert message.endswith(" are available; give a smaller --image-size, --batch or --channels")


# ---- files of arrays


def arrays(file: Path, n: int = 6, **more: Any) -> str:
    pixels = np.random.default_rng(0).integers(0, 256, (n, 16, 16, 3), dtype=np.uint8)
    np.savez(file, **{"images": pixels, **more})
    return str(file)


def test_names_in_an_npz_file(tmp_path: Path):
    labels = np.array([0, 2, 2, 0, 0, 2])
    data = load_dataset(arrays(tmp_path / "d.npz", labels=labels, classes=np.array(["cat", "dog", "fox"])))
    assert (data.classes, data.num_classes) == (("cat", "dog", "fox"), 3)
    assert data.notes == ("d.npz: no images of these classes: 1 dog",)
    named = load_dataset(arrays(tmp_path / "n.npz", labels=np.array(["b", "a", "c", "a", "a", "b"])))
    assert named.classes == ("a", "b", "c")
    assert named.labels is not None and named.labels.tolist() == [1, 0, 2, 0, 0, 1]


def test_labels_that_count_from_1_are_refused_unless_classes_are_named(train: Callable[..., Result], tmp_path: Path):
    labels = np.array([1, 2, 3, 1, 2, 3])
    message = refusal(train(arrays(tmp_path / "d.npz", labels=labels)))
    assert message.endswith(
        "labels go from 1 to 3, so class 0 would have no images; convert them with labels - 1, or name all 4 classes in an array `classes`"
    )
    names = np.array(["nothing", "cat", "dog", "fox"])
    data = load_dataset(arrays(tmp_path / "d.npz", labels=labels, classes=names))
    assert data.notes == ("d.npz: no images of these classes: 0 nothing",)


def test_classes_without_images_are_named(tmp_path: Path):
    assert load_dataset(arrays(tmp_path / "d.npz", labels=np.array([0, 3, 3, 0, 1, 1]))).notes == ("d.npz: no images of these classes: 2",)


def test_floats_from_0_to_1(train: Callable[..., Result], tmp_path: Path):
    data = arrays(tmp_path / "unit.npz", images=np.random.default_rng(0).random((4, 1, 8, 8), dtype=np.float32))
    assert "images * 2 - 1" in refusal(train(data))
    assert train(data, "--value-range", "0,1").exit_code == 0
    converted = load_dataset(data, value_range=(0.0, 1.0)).images
    assert (converted.min() < -0.9) and (converted.max() > 0.9)
    assert load_dataset(data, value_range=(-1.0, 1.0)).images.min() >= 0


def test_data_of_another_kind(train: Callable[..., Result], tmp_path: Path):
    file = picture(tmp_path / "a.png")
    assert refusal(train(file)) == f"{file} is not a data set; give digits, a folder of images, or an .npz file"
    assert refusal(train(tmp_path / "gone")).startswith(f"there is no file or folder {tmp_path}/gone; give digits")
    np.save(tmp_path / "d.npy", np.zeros((3, 8, 8), np.uint8))
    assert len(load_dataset(str(tmp_path / "d.npy"))) == 3
    Path(arrays(tmp_path / "d.npz")).rename(tmp_path / "d.NPZ")
    assert len(load_dataset(str(tmp_path / "d.NPZ"))) == 6


# ---- data for a model


def test_classes_of_a_model_are_found_by_name(tmp_path: Path):
    data = load_dataset(classes(tmp_path / "data", ["3", "cat"]), model=ANIMAL)
    assert data.labels is not None and data.labels.tolist() == [2, 2, 0, 0]
    assert data.classes == ANIMALS
    assert data.notes == (
        "data: classes are numbered as in the model, by name: 3 is 2, cat is 0",
        "data: no images of these classes: 1 dog, 3 tench, Tinca tinca",
    )


def test_a_class_that_the_model_does_not_have(train: Callable[..., Result], tmp_path: Path):
    data = classes(tmp_path / "data", ["dog", "wolf"])
    message = refusal(train(data, "--init", animals_checkpoint(tmp_path / "init.safetensors")))
    assert message == ("data: the model has no class wolf; its classes are cat, dog, 3, tench, Tinca tinca, those of the data dog, wolf")
    for file in (tmp_path / "data" / "wolf").iterdir():
        file.unlink()
    assert load_dataset(data, model=ANIMAL).classes == ANIMALS  # an empty folder of another name does no harm


def test_fine_tuning_keeps_what_a_class_is(train: Callable[..., Result], tmp_path: Path):
    init = animals_checkpoint(tmp_path / "init.safetensors")
    ended = train(classes(tmp_path / "data", ["3", "dog"], mode="L"), "--init", init)
    assert ended.exit_code == 0
    assert "\nclasses: 0 cat (0), 1 dog (2), 2 3 (2), 3 tench, Tinca tinca (0)\n" in ended.stderr
    assert "note: data: 4 images: 4 converted from grey to colour\n" in ended.stderr
    tuned = load_checkpoint(tmp_path / "out.safetensors")
    assert tuned.classes == ANIMALS and tuned.config == TINY
    before, after = load_checkpoint(init).state_dict["label_emb.weight"], tuned.state_dict["label_emb.weight"]
    moved = (after - before).abs().amax(dim=1)
    assert moved[0] < 1e-3 and moved[3] < 1e-3  # float16 rounds; the rows of classes without images are as they were


@pytest.mark.parametrize(
    ("names", "labels", "note"),
    [
        (["a", "b", "c", "d"], [0, 1, 2, 3], "the model has no class names; its classes 0 to 3 are taken as a, b, c, d"),
        (["3", "1"], [1, 3], "the model has no class names; names that are numbers are taken as its numbers"),
        (["00", "01", "02", "03"], [0, 1, 2, 3], None),
    ],
)
def test_names_for_a_model_without_names(tmp_path: Path, names: list[str], labels: list[int], note: str | None):
    data = load_dataset(classes(tmp_path / "data", names, 1), model=NAMELESS)
    assert data.labels is not None and data.labels.tolist() == labels
    assert data.notes[:1] == (() if note is None else (f"data: {note}",))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["dog", "fox"], "has 2 classes (dog, fox), and the model has 4 without names, so it is unknown which is which"),
        (list("abcde"), "has 5 classes (a, b, c, d, e), and the model has 4 without names"),
        (["1", "2", "3", "4"], "its classes have the names 1, 2, 3, 4, but the model has classes 0 to 3 without names"),
    ],
)
def test_names_that_tell_a_model_without_names_nothing(tmp_path: Path, names: list[str], message: str):
    with pytest.raises(LabelError) as caught:
        load_dataset(classes(tmp_path / "data", names, 1), model=NAMELESS)
    assert message in str(caught.value)


def test_numbers_for_a_model_with_names(tmp_path: Path):
    data = load_dataset(arrays(tmp_path / "d.npz", labels=np.array([0, 1, 1, 0, 2, 3])), model=ANIMAL)
    assert data.classes == ANIMALS
    assert data.notes == (
        "d.npz: has no class names; its labels are taken as the model's numbers: 0 cat, 1 dog, 2 3, 3 tench, Tinca tinca",
    )
    for labels, message in (
        ([1, 2, 3, 4, 1, 1], "has labels 1 to 4; the model has classes 0 to 3; labels count from 0: subtract 1 (labels - 1)"),
        ([0, 7, 0, 0, 0, 0], "has labels 0 to 7; the model has classes 0 to 3"),
    ):
        with pytest.raises(LabelError) as caught:
            load_dataset(arrays(tmp_path / "d.npz", labels=np.array(labels)), model=ANIMAL)
        assert str(caught.value) == f"d.npz: {message}"


def test_digits_fit_the_shipped_model_without_a_note():
    model = load_checkpoint(shipped_checkpoint()).facts
    assert load_dataset("digits", model=model).notes == ()


def test_another_size_than_the_models_is_refused(train: Callable[..., Result], tmp_path: Path):
    data = classes(tmp_path / "data", ["cat"])
    message = refusal(train(data, "--image-size", "32", "--init", animals_checkpoint(tmp_path / "init.safetensors")))
    assert message == "the model takes images of 16 pixels, not 32"


def test_both_parts_have_the_labels_of_the_model(tmp_path: Path):
    data, test = classes(tmp_path / "data", ["dog", "3"], 3), classes(tmp_path / "test", ["3"], 40)
    train, real = held_out(data, ANIMAL, "test", test)
    assert train.labels is not None and sorted(train.labels.tolist()) == [1, 1, 1, 2, 2, 2]
    assert real.labels is not None and set(real.labels.tolist()) == {2}
    assert train.classes == real.classes == ANIMALS


def test_a_part_may_lack_classes_and_have_fewer_images_than_there_are_classes(tmp_path: Path):
    labels = np.arange(160) % 4
    many = replace(ANIMAL, num_classes=200, classes=tuple(f"c{number}" for number in range(200)))
    _, real = held_out(arrays(tmp_path / "d.npz", 160, labels=labels + 190), many, "test")
    assert len(real) == 32 and real.labels is not None and int(real.labels.max()) == 193


@pytest.mark.slow
def test_int8_calibrates_on_the_classes_of_that_name(cli: Cli, tmp_path: Path):
    checkpoint = animals_checkpoint(tmp_path / "animals.safetensors")
    data = classes(tmp_path / "data", ["dog", "3"], 16, mode="L", size=(20, 18))
    options = ("--precision", "int8", "--size", "32", "--allow-inaccurate", "--force", "-o", tmp_path / "q.bundle")
    ended = cli("export", checkpoint, "--data", data, *options)
    assert ended.exit_code == 0, ended.output
    assert "note: data: 32 images: 32 converted from grey to colour, 32 cropped or resized to 16×16\n" in ended.stderr
    assert "note: data: classes are numbered as in the model, by name: 3 is 2, dog is 1\n" in ended.stderr
    other = classes(tmp_path / "other", ["dog", "wolf"], 16)
    for command in (("export", checkpoint, *options), ("calibrate", tmp_path / "q.bundle")):
        assert "the model has no class wolf" in refusal(cli(*command, "--data", other))


def test_a_baseline_with_classes_in_another_order_is_refused(cli: Cli, tmp_path: Path):
    from bcm_edge.model.preconditioning import Denoiser

    torch.manual_seed(0)
    animals = animals_checkpoint(tmp_path / "animals.safetensors")
    assert cli("export", animals, "-o", tmp_path / "a.bundle", "--no-verify").exit_code == 0
    weights, told = Denoiser(TINY).network.state_dict(), {"objective": "edm"}
    save_checkpoint(tmp_path / "edm.safetensors", weights, TINY, {}, told, classes=ANIMALS[::-1])
    options = ("--data", "digits", "--baseline", tmp_path / "edm.safetensors", "-o", tmp_path / "r.html")
    message = refusal(cli("evaluate", tmp_path / "a.bundle", *options))
    assert "its classes are tench, Tinca tinca, 3, dog, cat; those of the bundle are cat, dog, 3, tench, Tinca tinca" in message


def test_a_run_that_was_killed_goes_on_when_a_folder_was_renamed_but_not_with_other_labels(tmp_path: Path):
    from bcm_edge.training.networks import network_for
    from bcm_edge.training.trainer import Trainer, TrainOptions

    options = TrainOptions(steps=4, batch=2, channels=8, intervals=20)
    first = load_dataset(classes(tmp_path / "data", ["cat", "dog"]))
    Trainer(first, network_for(first, 8), options).save(tmp_path / "state")
    (tmp_path / "data" / "dog").rename(tmp_path / "data" / "hound")
    renamed = load_dataset(str(tmp_path / "data"))
    run = Trainer(renamed, network_for(renamed, 8), options)
    run.restore(tmp_path / "state")
    assert run.checkpoint().classes == ("cat", "hound")
    (tmp_path / "data" / "hound").rename(tmp_path / "data" / "beagle")
    moved = load_dataset(str(tmp_path / "data"))
    with pytest.raises(CheckpointError, match="other data"):
        Trainer(moved, network_for(moved, 8), options).restore(tmp_path / "state")
