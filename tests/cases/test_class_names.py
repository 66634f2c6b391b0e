"""Class names: which are valid, how labels are matched with them, and which files contain them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from animals import ANIMALS, animals_checkpoint
from fixture_types import Cli
from networks import TINY, random_model
from refusals import edit_manifest, refusal
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from bcm_edge.errors import CheckpointError, LabelError
from bcm_edge.model.checkpoint import load_checkpoint, save_checkpoint, shipped_checkpoint
from bcm_edge.model.weights_files import METADATA_KEY
from bcm_edge.runtime.classes import class_names, in_order, label_of, labels_of
from bcm_edge.runtime.storage.bundle import open_bundle
from bcm_edge.runtime.wording import listed


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        ("abc", "must be a list of texts"),
        ({"cat": 0}, "must be a list of texts"),
        (["cat", 1], "must be a list of texts"),
        (["cat", " "], "is empty"),
        (["cat", "d\nog"], "cannot be printed"),
        (["cat", "\x1b[31mdog"], "cannot be printed"),
        (["cat", "\udcff"], "cannot be printed"),
        (["cat", "dog", "cat "], "two classes have the name 'cat'"),
        (["caf\u00e9", "cafe\u0301"], "two classes have the name 'café'"),
    ],
)
def test_invalid_class_names(names: object, problem: str):
    with pytest.raises(ValueError, match=problem):
        class_names(names)


def test_class_names_are_normalized_and_stripped():
    assert class_names(["cafe\u0301", " big dog ", "狐", "🦊"]) == ("caf\u00e9", "big dog", "狐", "🦊")


def test_names_that_are_numbers_are_sorted_by_value():
    assert in_order(["10", "9", "1"]) == ["1", "9", "10"]
    assert in_order(["10", "9", "b"]) == ["10", "9", "b"]
    # Two of them are the same number, so they are sorted as text.
    assert in_order(["1", "01", "0"]) == ["0", "01", "1"]


def test_label_is_a_name_if_one_matches_and_a_number_otherwise():
    assert [label_of(word, 4, ANIMALS) for word in ("dog", " dog ", "2", "3", "tench, Tinca tinca")] == [
        1,
        1,
        2,
        2,
        3,
    ]
    assert labels_of("tench, Tinca tinca", 4, ANIMALS) == [3]
    assert labels_of("dog, 3,0", 4, ANIMALS) == [1, 2, 0]
    assert label_of("cafe\u0301", 1, ("caf\u00e9",)) == 0


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("dgo", "no class of this model is named 'dgo' (did you mean dog?); it has classes "),
        ("Dog", "no class of this model is named 'Dog' (did you mean dog?); it has classes "),
        ("", "no class of this model is named ''; it has classes "),
        ("4", "label 4 is out of range; this model has classes "),
        ("-1", "label -1 is out of range; this model has classes "),
        ("9" * 5000, f"no class of this model is named '{'9' * 5000}'; it has classes "),
    ],
)
def test_unknown_label(word: str, message: str):
    with pytest.raises(LabelError) as caught:
        label_of(word, 4, ANIMALS)
    assert str(caught.value) == f"{message}0 to 3: cat, dog, 3, tench, Tinca tinca"


def test_name_for_a_model_without_names():
    with pytest.raises(LabelError) as caught:
        label_of("dog", 10, None)
    assert (
        str(caught.value) == "'dog' is not a label: this model has no class names; give a number from 0 to 9"
    )


def test_long_lists_of_names_are_shortened():
    assert listed([f"n{k}" for k in range(1000)]) == "n0, n1, n2, n3, n4, n5, n6, n7, n8, n9 and 990 more"
    assert listed(list("abcdefghijk")) == "a, b, c, d, e, f, g, h, i, j, k"


# Files that contain names


def test_names_are_copied_from_the_checkpoint_to_the_bundle(cli: Cli, animals: Path):
    assert load_checkpoint(animals.with_name("animals.safetensors")).classes == ANIMALS
    assert open_bundle(animals).manifest.model.classes == ANIMALS
    assert "\nclasses: 0 cat, 1 dog, 2 3, 3 tench, Tinca tinca\n" in cli("inspect", animals).stdout
    assert json.loads(cli("inspect", animals, "--json").stdout)["model"]["classes"] == list(ANIMALS)


def test_files_without_names_are_loaded(cli: Cli, digits_bundle: Path, bundle_copy: Path):
    assert load_checkpoint(shipped_checkpoint()).classes is None
    # Bundles of older versions have no such field.
    edit_manifest(bundle_copy, lambda manifest: manifest["model"].pop("classes"))
    for bundle in (digits_bundle, bundle_copy):
        assert open_bundle(bundle).manifest.model.classes is None
        lines = cli("inspect", bundle).stdout.splitlines()
        assert not [line for line in lines if line.startswith("classes:")]


@pytest.mark.parametrize(
    "names", ["abcd", ["cat", "dog"], ["a", "a", "b", "c"], ["a", "b", "c", 4], ["a", "b", "c", "\x1b[2J"]]
)
def test_manifest_with_invalid_names_is_refused(cli: Cli, animals: Path, tmp_path: Path, names: object):
    (tmp_path / "x.bundle").mkdir()
    manifest = json.loads((animals / "manifest.json").read_text())
    manifest["model"]["classes"] = names
    (tmp_path / "x.bundle" / "manifest.json").write_text(json.dumps(manifest))
    assert "manifest.json: not a valid manifest" in refusal(cli("inspect", tmp_path / "x.bundle"))


@pytest.mark.parametrize("names", ["abcd", ["cat", "dog"], ["a", "a", "b", "c"], [1, 2, 3, 4]])
def test_checkpoint_with_invalid_names_is_refused(tmp_path: Path, names: object):
    file = animals_checkpoint(tmp_path / "x.safetensors")
    with safe_open(file, framework="pt") as opened:
        header = json.loads(opened.metadata()[METADATA_KEY])
    save_file(load_file(file), file, {METADATA_KEY: json.dumps({**header, "classes": names})})
    with pytest.raises(CheckpointError, match="header"):
        load_checkpoint(file)


def test_names_of_a_model_without_classes_are_refused(tmp_path: Path):
    plain = replace(TINY, num_classes=None)
    save_checkpoint(
        tmp_path / "x.safetensors", random_model(plain).network.state_dict(), plain, {}, {}, classes=["cat"]
    )
    with pytest.raises(CheckpointError, match="1 class names for no classes"):
        load_checkpoint(tmp_path / "x.safetensors")
