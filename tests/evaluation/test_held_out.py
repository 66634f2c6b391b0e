"""The images that a model is judged by: parts of a data set that are not used for training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bcm_edge.errors import ImageError, LabelError
from bcm_edge.evaluation.data import held_out, trained_on_all
from bcm_edge.runtime.storage.manifest import ModelFacts
from bcm_edge.training.data import load_dataset, load_digits
from bcm_edge.training.validation import split

DIGITS = ModelFacts("digits", (1, 8, 8), 10, 0, {})
PLAIN = ModelFacts("plain", (1, 8, 8), None, 0, {})


def test_held_out_parts_of_digits():
    train, validation = held_out("digits", DIGITS, digits="validation")
    assert (len(train), len(validation)) == (1257, 180)
    assert len(held_out("digits", DIGITS, digits="test")[1]) == 360


def test_a_fifth_of_other_data_is_held_out(tmp_path: Path):
    images = np.arange(200, dtype=np.uint8).repeat(64).reshape(200, 8, 8)
    np.savez(tmp_path / "d.npz", images=images)
    train, real = held_out(str(tmp_path / "d.npz"), PLAIN, digits="test")
    assert (len(train), len(real), train.labels) == (160, 40, None)
    assert len(set(torch.cat([train.images, real.images])[:, 0, 0, 0].tolist())) == 200
    train, real = held_out("digits", PLAIN, digits="test", test=str(tmp_path / "d.npz"))
    assert (len(train), len(real)) == (1257, 200)


def test_held_out_data_needs_labels_for_a_model_with_classes(tmp_path: Path):
    np.savez(tmp_path / "d.npz", images=np.zeros((50, 8, 8), np.uint8))
    with pytest.raises(LabelError, match=r"d\.npz: has no labels, and the model has 10 classes"):
        held_out("digits", DIGITS, digits="test", test=str(tmp_path / "d.npz"))


def test_test_digits_may_be_given_by_name():
    real = held_out("digits", DIGITS, digits="test", test="digits")[1]
    assert torch.equal(real.images, load_digits("test").images)


def test_test_images_that_are_also_training_images_are_refused(tmp_path: Path):
    images = np.random.default_rng(0).integers(0, 256, (60, 8, 8), np.uint8)
    np.savez(tmp_path / "all.npz", images=images)
    np.savez(tmp_path / "most.npz", images=np.concatenate([images[:31], 255 - images[:29]]))
    with pytest.raises(ImageError, match=r"most\.npz: 31 of its 60 images are also in all\.npz"):
        held_out(str(tmp_path / "all.npz"), PLAIN, digits="test", test=str(tmp_path / "most.npz"))


def test_images_sorted_by_class_are_shuffled(tmp_path: Path):
    random = np.random.default_rng(1)
    images = random.integers(0, 256, (100, 8, 8), np.uint8)
    np.savez(tmp_path / "t.npz", images=images, labels=np.arange(100) // 10)
    _, real = held_out("digits", DIGITS, digits="test", test=str(tmp_path / "t.npz"))
    assert real.labels is not None
    assert len(set(real.labels[:20].tolist())) > 5
    assert sorted(real.labels.tolist()) == [i // 10 for i in range(100)]


def folder(path: Path, classes: str, mode: str = "L") -> str:
    """Write a folder with 60 random pictures of each class. Return its path."""
    random = np.random.default_rng(sum(path.name.encode()))
    for name in classes:
        (path / name).mkdir(parents=True)
        for i in range(60):
            picture = Image.fromarray(random.integers(0, 256, (8, 8), np.uint8))
            picture.convert(mode).save(path / name / f"{i}.png")
    return str(path)


def test_folders_must_have_the_same_classes(tmp_path: Path):
    data = folder(tmp_path / "data", "abc")
    with pytest.raises(LabelError, match=r"sub-folders are not those of data \(only one has 'a'\)"):
        held_out(data, PLAIN, digits="test", test=folder(tmp_path / "other", "bc"))
    real = held_out(data, PLAIN, digits="test", test=folder(tmp_path / "same", "abc"))[1]
    assert real.classes == ("a", "b", "c")


def test_grey_pictures_stored_in_colour_become_grey_for_a_grey_model(tmp_path: Path):
    train, real = held_out(folder(tmp_path / "data", "012", "RGB"), DIGITS, digits="test")
    assert train.images.shape == (144, 1, 8, 8)
    assert real.images.shape == (36, 1, 8, 8)


def test_models_trained_on_the_data_are_found_by_provenance(tmp_path: Path):
    np.savez(tmp_path / "d.npz", images=np.zeros((50, 8, 8), np.uint8))
    data = str(tmp_path / "d.npz")
    provenances = {
        "the model": {"data": load_dataset(data).digest},
        "the baseline": {"data": "other"},
        "another": {},
        "one with validation": {"data": split(load_dataset(data), 0.1)[0].digest, "held_out": 0.1},
        "one of other data": {"data": "other", "held_out": 0.001},
    }
    assert trained_on_all(data, PLAIN, provenances) == ["the model", "one with validation"]
    digits = {"the model": {"data": load_digits("train").digest}}
    assert trained_on_all("digits", PLAIN, digits) == []
