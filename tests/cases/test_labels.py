"""Class names: kept from checkpoint to bundle, shown, and accepted wherever a label is given."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from agreement import assert_images_agree
from animals import ANIMALS, animals_checkpoint
from fixture_types import Cli
from networks import TINY, random_model
from refusals import edit_manifest, refusal
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import bcm_edge
from bcm_edge import BcmError
from bcm_edge.errors import CheckpointError, LabelError
from bcm_edge.model.checkpoint import load_checkpoint, save_checkpoint, shipped_checkpoint
from bcm_edge.model.weights_files import METADATA_KEY
from bcm_edge.runtime.classes import class_names, in_order, label_of, labels_of
from bcm_edge.runtime.pipeline import BCM
from bcm_edge.runtime.storage.bundle import open_bundle
from bcm_edge.runtime.wording import listed
from bcm_edge.ui.answers import Answers


@pytest.fixture(scope="module")
def animals(cli: Cli, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle. Every test reads it, none writes to it."""
    folder = tmp_path_factory.mktemp("animals")
    checkpoint = animals_checkpoint(folder / "animals.safetensors")
    assert cli("export", checkpoint, "-o", folder / "animals.bundle", "--no-verify").exit_code == 0
    return folder / "animals.bundle"


@pytest.fixture(scope="module")
def bcm(animals: Path) -> Iterator[BCM]:
    with bcm_edge.load(animals) as bcm:
        yield bcm


@pytest.fixture
def labels_with(cli: Cli, animals: Path, tmp_path: Path) -> Callable[..., list[int]]:
    """The labels of the images that a command writes."""

    def run(command: str, *arguments: object) -> list[int]:
        ended = cli(command, animals, *arguments, "-o", tmp_path / "out.npz", "--force")
        assert ended.exit_code == 0, ended.output
        return np.load(tmp_path / "out.npz")["labels"].tolist()

    return run


def pictures(file: Path, n: int = 3, **arrays: Any) -> Path:
    """n colour images of 16×16 pixels and other arrays in an npz file."""
    np.savez(file, images=np.random.default_rng(0).integers(0, 256, (n, 16, 16, 3), dtype=np.uint8), **arrays)
    return file


# ---- what a name is


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
def test_names_that_cannot_be_used(names: object, problem: str):
    with pytest.raises(ValueError, match=problem):
        class_names(names)


def test_names_are_composed_and_without_blanks_around_them():
    assert class_names(["cafe\u0301", " big dog ", "狐", "🦊"]) == ("caf\u00e9", "big dog", "狐", "🦊")


def test_numbers_are_counted_by_value_and_other_names_by_letters():
    assert in_order(["10", "9", "1"]) == ["1", "9", "10"]
    assert in_order(["10", "9", "b"]) == ["10", "9", "b"]
    assert in_order(["1", "01", "0"]) == ["0", "01", "1"]  # two are one number, so no order of values


def test_a_word_is_a_name_first_and_a_number_otherwise():
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
        (
            "dgo",
            "no class of this model is named 'dgo' (did you mean dog?); it has classes 0 to 3: cat, dog, 3, tench, Tinca tinca",
        ),
        (
            "Dog",
            "no class of this model is named 'Dog' (did you mean dog?); it has classes 0 to 3: cat, dog, 3, tench, Tinca tinca",
        ),
        ("", "no class of this model is named ''; it has classes 0 to 3: cat, dog, 3, tench, Tinca tinca"),
        ("4", "label 4 is out of range; this model has classes 0 to 3: cat, dog, 3, tench, Tinca tinca"),
        ("-1", "label -1 is out of range; this model has classes 0 to 3: cat, dog, 3, tench, Tinca tinca"),
        (
            "9" * 5000,
            f"no class of this model is named '{'9' * 5000}'; it has classes 0 to 3: cat, dog, 3, tench, Tinca tinca",
        ),
    ],
)
def test_a_word_that_is_no_class(word: str, message: str):
    with pytest.raises(LabelError) as caught:
        label_of(word, 4, ANIMALS)
    assert str(caught.value) == message


def test_a_word_for_a_model_without_names():
    with pytest.raises(LabelError) as caught:
        label_of("dog", 10, None)
    assert (
        str(caught.value) == "'dog' is not a label: this model has no class names; give a number from 0 to 9"
    )


def test_many_names_are_shortened():
    assert listed([f"n{k}" for k in range(1000)]) == "n0, n1, n2, n3, n4, n5, n6, n7, n8, n9 and 990 more"
    assert listed(list("abcdefghijk")) == "a, b, c, d, e, f, g, h, i, j, k"


# ---- where names are kept


def test_names_go_from_checkpoint_to_bundle_to_inspect(cli: Cli, animals: Path):
    assert load_checkpoint(animals.with_name("animals.safetensors")).classes == ANIMALS
    assert open_bundle(animals).manifest.model.classes == ANIMALS
    assert "\nclasses: 0 cat, 1 dog, 2 3, 3 tench, Tinca tinca\n" in cli("inspect", animals).stdout
    assert json.loads(cli("inspect", animals, "--json").stdout)["model"]["classes"] == list(ANIMALS)


def test_files_without_names_load_as_before(cli: Cli, digits_bundle: Path, bundle_copy: Path):
    assert load_checkpoint(shipped_checkpoint()).classes is None
    edit_manifest(
        bundle_copy, lambda manifest: manifest["model"].pop("classes")
    )  # as bundles were before there were names
    for bundle in (digits_bundle, bundle_copy):
        assert open_bundle(bundle).manifest.model.classes is None
        assert "classes:" not in cli("inspect", bundle).stdout


@pytest.mark.parametrize(
    "names", ["abcd", ["cat", "dog"], ["a", "a", "b", "c"], ["a", "b", "c", 4], ["a", "b", "c", "\x1b[2J"]]
)
def test_a_manifest_with_other_names_is_refused(cli: Cli, animals: Path, tmp_path: Path, names: object):
    (tmp_path / "x.bundle").mkdir()
    manifest = json.loads((animals / "manifest.json").read_text())
    manifest["model"]["classes"] = names
    (tmp_path / "x.bundle" / "manifest.json").write_text(json.dumps(manifest))
    assert "manifest.json: not a valid manifest" in refusal(cli("inspect", tmp_path / "x.bundle"))


@pytest.mark.parametrize("names", ["abcd", ["cat", "dog"], ["a", "a", "b", "c"], [1, 2, 3, 4]])
def test_a_checkpoint_with_other_names_is_refused(tmp_path: Path, names: object):
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


# ---- where names are given


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("dog", [1, 1, 1]),
        ("dog,cat", [1, 0, 1]),
        ("3", [2, 2, 2]),
        ("tench, Tinca tinca", [3, 3, 3]),
        ("all", [0, 1, 2]),
    ],
)
def test_labels_of_generated_images(labels_with: Callable[..., list[int]], text: str, labels: list[int]):
    assert labels_with("generate", "-n", "3", "--label", text) == labels


def test_a_part_of_a_name_is_a_hint(cli: Cli, animals: Path, tmp_path: Path):
    message = refusal(cli("generate", animals, "--label", "0,tench", "-o", tmp_path / "x.npz"))
    assert message.startswith(
        "no class of this model is named 'tench' (did you mean tench, Tinca tinca?); it has classes 0 to 3: cat"
    )


def test_labels_of_given_images(labels_with: Callable[..., list[int]], tmp_path: Path):
    file = pictures(tmp_path / "in.npz")
    assert labels_with("invert", file, "--label", "dog,cat") == [1, 0, 1]
    assert labels_with("variations", file, "--label", "dog", "-n", "1") == [1, 1, 1]
    assert labels_with("restore", file, "--label", "cat,dog") == [0, 1, 0]


def test_labels_of_a_pair_by_name(labels_with: Callable[..., list[int]], tmp_path: Path):
    file = pictures(tmp_path / "in.npz", 1)
    assert labels_with("interpolate", file, file, "--label", "cat,dog", "--frames", "4") == [0, 0, 1, 1]
    assert labels_with("interpolate", file, file, "--label", "tench, Tinca tinca", "--frames", "2") == [3, 3]


def test_labels_in_a_file_are_found_by_name(
    cli: Cli, animals: Path, labels_with: Callable[..., list[int]], tmp_path: Path
):
    numbered = pictures(
        tmp_path / "numbered.npz", labels=np.array([0, 1, 1]), classes=np.array(["dog", "cat"])
    )
    assert labels_with("invert", numbered) == [1, 0, 0]
    assert labels_with("invert", pictures(tmp_path / "named.npz", labels=np.array(["3", "cat", "dog"]))) == [
        2,
        0,
        1,
    ]
    assert labels_with("invert", pictures(tmp_path / "plain.npz", labels=np.array([3, 0, 1]))) == [3, 0, 1]
    unknown = pictures(
        tmp_path / "unknown.npz", labels=np.array([0, 1, 1]), classes=np.array(["dog", "wolf"])
    )
    assert "no class of this model is named 'wolf'" in refusal(
        cli("invert", animals, unknown, "-o", tmp_path / "x.npz")
    )


def test_labels_beside_latents_are_found_by_name(cli: Cli, animals: Path, tmp_path: Path):
    latents = np.random.default_rng(0).standard_normal((2, 3, 16, 16)).astype(np.float32)
    choices: list[dict[str, Any]] = [
        {"labels": np.array([0, 1]), "classes": np.array(["dog", "cat"])},
        {"labels": np.array(["dog", "cat"])},
    ]
    for arrays in choices:
        np.savez(tmp_path / "latents.npz", latents=latents, **arrays)
        ended = cli(
            "generate", animals, "--latents", tmp_path / "latents.npz", "-o", tmp_path / "out.npz", "--force"
        )
        assert ended.exit_code == 0, ended.stderr
        assert np.load(tmp_path / "out.npz")["labels"].tolist() == [1, 0]
    np.savez(tmp_path / "latents.npz", latents=latents, labels=np.array(["wolf", "cat"]))
    ended = cli(
        "generate", animals, "--latents", tmp_path / "latents.npz", "-o", tmp_path / "out.npz", "--force"
    )
    assert "no class of this model is named 'wolf'" in refusal(ended)


def test_labels_that_are_not_used_are_not_checked(
    cli: Cli, animals: Path, labels_with: Callable[..., list[int]], tmp_path: Path
):
    file = pictures(tmp_path / "in.npz", 3, labels=np.zeros(5))
    assert labels_with("invert", file, "--label", "dog") == [1, 1, 1]
    assert "not float64" in refusal(cli("invert", animals, file, "-o", tmp_path / "x.npz"))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (
            {"labels": np.array([0, 2, 1]), "classes": np.array(["cat", "dog"])},
            "labels go from 0 to 2, but `classes` names classes 0 to 1",
        ),
        (
            {"labels": np.zeros(3, int), "classes": np.array([b"cat"])},
            "has `classes` of shape [1] and type |S3",
        ),
        ({"classes": np.array(["cat"])}, "has `classes` but no `labels`"),
        (
            {"labels": np.array(["cat", "dog", "fox"]), "classes": np.array(["cat", "dog"])},
            "labels has fox, which `classes` has not",
        ),
        ({"labels": np.zeros(3)}, "or class names, not float64; convert them with labels.astype(int)"),
        ({"labels": np.zeros((3, 4), int)}, "labels has shape [3, 4]"),
    ],
)
def test_labels_and_names_that_do_not_fit(
    cli: Cli, animals: Path, tmp_path: Path, arrays: dict[str, np.ndarray], message: str
):
    assert message in refusal(
        cli("invert", animals, pictures(tmp_path / "in.npz", 3, **arrays), "-o", tmp_path / "x.npz")
    )


def test_guessed_labels_are_shown_by_name(cli: Cli, animals: Path, tmp_path: Path):
    ended = cli(
        "invert", animals, pictures(tmp_path / "in.npz"), "--label", "guess", "-o", tmp_path / "x.npz"
    )
    words = ended.stderr.partition("NFE each: ")[2].partition("\n")[0]
    labels = np.load(tmp_path / "x.npz")["labels"]
    assert words == ", ".join(ANIMALS[label] for label in labels)


def test_labels_in_python(bcm: BCM):
    assert (
        bcm.generate(2, labels=np.array(["dog", "cat"], object)).shape[0] == 2
    )  # what pandas makes of texts
    with pytest.raises(LabelError, match="0 labels were given for 2 images"):
        bcm.generate(2, labels=[])
    assert bcm.classes == ANIMALS
    dog = bcm.generate(2, seed=5, labels=1)
    for labels in ("dog", ["dog", "dog"], np.array(["dog", "dog"]), [1, "dog"], ("dog", 1)):
        assert_images_agree(bcm.generate(2, seed=5, labels=labels), dog)
    assert np.abs(bcm.generate(2, seed=5, labels="cat") - dog).max() > 1e-3
    assert len(bcm.generate(labels=["dog", "cat"], seed=[0, 1])) == 2
    wrong = (
        ("dgo", "did you mean dog"),
        (["dog", "wolf"], "'wolf'"),
        (None, "or one of the names cat, dog"),
        (1.0, "class names"),
    )
    for labels, message in wrong:
        with pytest.raises(LabelError, match=message):
            bcm.generate(2, labels=labels)  # pyright: ignore[reportArgumentType]


def test_a_model_without_classes_takes_no_name(coloured_without_classes: BCM):
    assert coloured_without_classes.classes is None
    with pytest.raises(LabelError, match="no classes"):
        coloured_without_classes.generate(1, labels="dog")


@pytest.fixture
def coloured_without_classes(cli: Cli, tmp_path: Path) -> Iterator[BCM]:
    plain = replace(TINY, num_classes=None)
    save_checkpoint(tmp_path / "x.safetensors", random_model(plain).network.state_dict(), plain, {}, {})
    assert (
        cli("export", tmp_path / "x.safetensors", "-o", tmp_path / "x.bundle", "--no-verify").exit_code == 0
    )
    with bcm_edge.load(tmp_path / "x.bundle") as bcm:
        yield bcm


def test_the_window_knows_names(bcm: BCM):
    answers = Answers(bcm)
    assert answers.about()["names"] == ANIMALS
    by_name, by_number = (answers.answer("generate", {"seed": 1, "label": label}) for label in ("dog", 1))
    assert by_name["label"] == by_number["label"] == 1
    assert by_name["picture"] == by_number["picture"]
    with pytest.raises(BcmError, match="did you mean dog"):
        answers.answer("generate", {"label": "dgo"})
