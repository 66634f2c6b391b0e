"""Training data in files of arrays, and how its labels are matched with the classes of a model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from animals import ANIMALS, animals_checkpoint, classes, picture
from fixture_types import Cli
from networks import TINY
from refusals import refusal

from bcm_edge.errors import CheckpointError, LabelError
from bcm_edge.evaluation.data import held_out
from bcm_edge.model.checkpoint import load_checkpoint, save_checkpoint, shipped_checkpoint
from bcm_edge.runtime.storage.manifest import ModelFacts
from bcm_edge.training.data import load_dataset

ANIMAL = ModelFacts("animals", (3, 16, 16), 4, 0, {}, ANIMALS)
NAMELESS = replace(ANIMAL, classes=None)


# Files of arrays


def arrays(file: Path, n: int = 6, **more: Any) -> str:
    """Save n colour images and other arrays in an npz file."""
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


def test_labels_that_count_from_1_are_refused_unless_classes_are_named(train: Cli, tmp_path: Path):
    labels = np.array([1, 2, 3, 1, 2, 3])
    message = refusal(train(arrays(tmp_path / "d.npz", labels=labels)))
    assert message.endswith(
        "labels go from 1 to 3, so class 0 would have no images; "
        "convert them with labels - 1, or name all 4 classes in an array `classes`"
    )
    names = np.array(["nothing", "cat", "dog", "fox"])
    data = load_dataset(arrays(tmp_path / "d.npz", labels=labels, classes=names))
    assert data.notes == ("d.npz: no images of these classes: 0 nothing",)


def test_classes_without_images_are_named(tmp_path: Path):
    assert load_dataset(arrays(tmp_path / "d.npz", labels=np.array([0, 3, 3, 0, 1, 1]))).notes == (
        "d.npz: no images of these classes: 2",
    )


def test_floats_from_0_to_1(train: Cli, tmp_path: Path):
    data = arrays(
        tmp_path / "unit.npz", images=np.random.default_rng(0).random((4, 1, 8, 8), dtype=np.float32)
    )
    assert "images * 2 - 1" in refusal(train(data))
    assert train(data, "--value-range", "0,1").exit_code == 0
    converted = load_dataset(data, value_range=(0.0, 1.0)).images
    assert (converted.min() < -0.9) and (converted.max() > 0.9)
    assert load_dataset(data, value_range=(-1.0, 1.0)).images.min() >= 0


def test_other_kinds_of_data(train: Cli, tmp_path: Path):
    file = picture(tmp_path / "a.png")
    assert (
        refusal(train(file)) == f"{file} is not a data set; give digits, a folder of images, or an .npz file"
    )
    assert refusal(train(tmp_path / "gone")).startswith(
        f"there is no file or folder {tmp_path}/gone; give digits"
    )
    np.save(tmp_path / "d.npy", np.zeros((3, 8, 8), np.uint8))
    assert len(load_dataset(str(tmp_path / "d.npy"))) == 3
    Path(arrays(tmp_path / "d.npz")).rename(tmp_path / "d.NPZ")
    assert len(load_dataset(str(tmp_path / "d.NPZ"))) == 6


# Data for a model


def test_classes_are_matched_with_the_model_by_name(tmp_path: Path):
    data = load_dataset(classes(tmp_path / "data", ["3", "cat"]), model=ANIMAL)
    assert data.labels is not None and data.labels.tolist() == [2, 2, 0, 0]
    assert data.classes == ANIMALS
    assert data.notes == (
        "data: classes are numbered as in the model, by name: 3 is 2, cat is 0",
        "data: no images of these classes: 1 dog, 3 tench, Tinca tinca",
    )


def test_class_that_the_model_does_not_have(train: Cli, tmp_path: Path):
    data = classes(tmp_path / "data", ["dog", "wolf"])
    message = refusal(train(data, "--init", animals_checkpoint(tmp_path / "init.safetensors")))
    assert message == (
        "data: the model has no class wolf; "
        "its classes are cat, dog, 3, tench, Tinca tinca, those of the data dog, wolf"
    )
    for file in (tmp_path / "data" / "wolf").iterdir():
        file.unlink()
    # An empty folder with an unknown name is ignored.
    assert load_dataset(data, model=ANIMAL).classes == ANIMALS


def test_fine_tuning_keeps_the_classes_of_the_model(train: Cli, tmp_path: Path):
    init = animals_checkpoint(tmp_path / "init.safetensors")
    result = train(classes(tmp_path / "data", ["3", "dog"], mode="L"), "--init", init)
    assert result.exit_code == 0
    assert "\nclasses: 0 cat (0), 1 dog (2), 2 3 (2), 3 tench, Tinca tinca (0)\n" in result.stderr
    assert "note: data: 4 images: 4 converted from grey to colour\n" in result.stderr
    tuned = load_checkpoint(tmp_path / "out.safetensors")
    assert tuned.classes == ANIMALS and tuned.config == TINY
    before, after = load_checkpoint(init).state_dict["label_emb.weight"], tuned.state_dict["label_emb.weight"]
    moved = (after - before).abs().amax(dim=1)
    # The rows of classes without images change only by the rounding to float16.
    assert moved[0] < 1e-3 and moved[3] < 1e-3


@pytest.mark.parametrize(
    ("names", "labels", "note"),
    [
        (
            ["a", "b", "c", "d"],
            [0, 1, 2, 3],
            "the model has no class names; its classes 0 to 3 are taken as a, b, c, d",
        ),
        (["3", "1"], [1, 3], "the model has no class names; names that are numbers are taken as its numbers"),
        (["00", "01", "02", "03"], [0, 1, 2, 3], None),
    ],
)
def test_names_for_a_model_without_names(
    tmp_path: Path, names: list[str], labels: list[int], note: str | None
):
    data = load_dataset(classes(tmp_path / "data", names, 1), model=NAMELESS)
    assert data.labels is not None and data.labels.tolist() == labels
    assert data.notes[:1] == (() if note is None else (f"data: {note}",))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ["dog", "fox"],
            "has 2 classes (dog, fox), and the model has 4 without names, "
            "so it is unclear which class is which",
        ),
        (list("abcde"), "has 5 classes (a, b, c, d, e), and the model has 4 without names"),
        (
            ["1", "2", "3", "4"],
            "its classes have the names 1, 2, 3, 4, but the model has classes 0 to 3 without names",
        ),
    ],
)
def test_names_that_cannot_be_matched_with_a_model_without_names(
    tmp_path: Path, names: list[str], message: str
):
    with pytest.raises(LabelError) as caught:
        load_dataset(classes(tmp_path / "data", names, 1), model=NAMELESS)
    assert message in str(caught.value)


def test_numbers_for_a_model_with_names(tmp_path: Path):
    data = load_dataset(arrays(tmp_path / "d.npz", labels=np.array([0, 1, 1, 0, 2, 3])), model=ANIMAL)
    assert data.classes == ANIMALS
    assert data.notes == (
        "d.npz: has no class names; its labels are taken as the model's numbers: "
        "0 cat, 1 dog, 2 3, 3 tench, Tinca tinca",
    )
    for labels, message in (
        (
            [1, 2, 3, 4, 1, 1],
            "has labels 1 to 4; the model has classes 0 to 3; labels count from 0: subtract 1 (labels - 1)",
        ),
        ([0, 7, 0, 0, 0, 0], "has labels 0 to 7; the model has classes 0 to 3"),
    ):
        with pytest.raises(LabelError) as caught:
            load_dataset(arrays(tmp_path / "d.npz", labels=np.array(labels)), model=ANIMAL)
        assert str(caught.value) == f"d.npz: {message}"


def test_digits_fit_the_shipped_model_without_a_note():
    model = load_checkpoint(shipped_checkpoint()).facts
    assert load_dataset("digits", model=model).notes == ()


def test_image_size_other_than_the_models_is_refused(train: Cli, tmp_path: Path):
    data = classes(tmp_path / "data", ["cat"])
    message = refusal(
        train(data, "--image-size", "32", "--init", animals_checkpoint(tmp_path / "init.safetensors"))
    )
    assert message == "the model takes images of 16 pixels, not 32"


def test_train_and_test_parts_have_the_labels_of_the_model(tmp_path: Path):
    data, test = classes(tmp_path / "data", ["dog", "3"], 3), classes(tmp_path / "test", ["3"], 40)
    train, real = held_out(data, ANIMAL, "test", test)
    assert train.labels is not None and sorted(train.labels.tolist()) == [1, 1, 1, 2, 2, 2]
    assert real.labels is not None and set(real.labels.tolist()) == {2}
    assert train.classes == real.classes == ANIMALS


def test_part_with_fewer_images_than_classes(tmp_path: Path):
    labels = np.arange(160) % 4
    many = replace(ANIMAL, num_classes=200, classes=tuple(f"c{number}" for number in range(200)))
    _, real = held_out(arrays(tmp_path / "d.npz", 160, labels=labels + 190), many, "test")
    assert len(real) == 32 and real.labels is not None and int(real.labels.max()) == 193


@pytest.mark.slow
def test_int8_calibration_matches_classes_by_name(cli: Cli, tmp_path: Path):
    checkpoint = animals_checkpoint(tmp_path / "animals.safetensors")
    data = classes(tmp_path / "data", ["dog", "3"], 16, mode="L", size=(20, 18))
    quantization = ("--precision", "int8", "--size", 32, "--allow-inaccurate")
    options = (*quantization, "--force", "-o", tmp_path / "q.bundle")
    result = cli("export", checkpoint, "--data", data, *options)
    assert result.exit_code == 0, result.output
    assert (
        "note: data: 32 images: 32 converted from grey to colour, 32 cropped or resized to 16×16\n"
        in result.stderr
    )
    assert "note: data: classes are numbered as in the model, by name: 3 is 2, dog is 1\n" in result.stderr
    other = classes(tmp_path / "other", ["dog", "wolf"], 16)
    for command in (("export", checkpoint, *options), ("calibrate", tmp_path / "q.bundle")):
        assert "the model has no class wolf" in refusal(cli(*command, "--data", other))


def test_baseline_with_classes_in_another_order_is_refused(cli: Cli, tmp_path: Path):
    from bcm_edge.model.preconditioning import Denoiser

    torch.manual_seed(0)
    animals = animals_checkpoint(tmp_path / "animals.safetensors")
    assert cli("export", animals, "-o", tmp_path / "a.bundle", "--no-verify").exit_code == 0
    weights, facts = Denoiser(TINY).network.state_dict(), {"objective": "edm"}
    save_checkpoint(tmp_path / "edm.safetensors", weights, TINY, {}, facts, classes=ANIMALS[::-1])
    options = ("--data", "digits", "--baseline", tmp_path / "edm.safetensors", "-o", tmp_path / "r.html")
    message = refusal(cli("evaluate", tmp_path / "a.bundle", *options))
    expected = (
        "the classes of the baseline are tench, Tinca tinca, 3, dog, cat, "
        "those of the bundle are cat, dog, 3, tench, Tinca tinca"
    )
    assert expected in message


def test_resumed_run_accepts_renamed_folders_but_not_other_labels(tmp_path: Path):
    from bcm_edge.training.networks import network_for
    from bcm_edge.training.options import TrainOptions
    from bcm_edge.training.trainer import Trainer

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
    with pytest.raises(CheckpointError, match="differs from this one in the images or labels;"):
        Trainer(moved, network_for(moved, 8), options).restore(tmp_path / "state")


def test_fine_tuning_refuses_another_number_of_channels(train: Cli, tmp_path: Path):
    init = animals_checkpoint(tmp_path / "animals.safetensors")
    data = classes(tmp_path / "data", ["cat", "dog"])
    assert (
        refusal(train(data, "--init", init, "--channels", "8"))
        == f"--channels 8 contradicts {init}, which has 32 channels; leave it out"
    )


def test_run_that_diverges_at_its_last_step_writes_no_checkpoint(train: Cli, tmp_path: Path):
    result = train(classes(tmp_path / "data", ["cat", "dog"]), "--learning-rate", "1e30")
    assert result.exit_code == 1
    assert "training diverged: NaN or infinity in the weights after the last step" in result.stderr
    assert not (tmp_path / "out.safetensors").exists()
