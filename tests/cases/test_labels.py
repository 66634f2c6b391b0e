"""Labels of commands, files, Python and the browser page, given by class name or by number."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from agreement import assert_images_agree
from animals import ANIMALS
from fixture_types import Cli
from networks import TINY, random_model
from refusals import refusal

import bcm_edge
from bcm_edge import BcmError
from bcm_edge.errors import LabelError
from bcm_edge.model.checkpoint import save_checkpoint
from bcm_edge.runtime.pipeline import BCM
from bcm_edge.ui.answers import Answers


@pytest.fixture(scope="module")
def bcm(animals: Path) -> Iterator[BCM]:
    """The model of that bundle."""
    with bcm_edge.load(animals) as bcm:
        yield bcm


@pytest.fixture
def labels_with(cli: Cli, animals: Path, tmp_path: Path) -> Callable[..., list[int]]:
    """Run a command and return the labels of the images that it writes."""

    def run(command: str, *arguments: object) -> list[int]:
        result = cli(command, animals, *arguments, "-o", tmp_path / "out.npz", "--force")
        assert result.exit_code == 0, result.output
        return np.load(tmp_path / "out.npz")["labels"].tolist()

    return run


def pictures(file: Path, n: int = 3, **arrays: Any) -> Path:
    """Save n colour images of 16×16 pixels and other arrays in an npz file."""
    np.savez(file, images=np.random.default_rng(0).integers(0, 256, (n, 16, 16, 3), dtype=np.uint8), **arrays)
    return file


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


def test_part_of_a_name_gets_a_suggestion(cli: Cli, animals: Path, tmp_path: Path):
    message = refusal(cli("generate", animals, "--label", "0,tench", "-o", tmp_path / "x.npz"))
    assert message.startswith(
        "no class of this model is named 'tench' (did you mean tench, Tinca tinca?); "
        "it has classes 0 to 3: cat"
    )


def test_labels_of_input_images(labels_with: Callable[..., list[int]], tmp_path: Path):
    file = pictures(tmp_path / "in.npz")
    assert labels_with("invert", file, "--label", "dog,cat") == [1, 0, 1]
    assert labels_with("variations", file, "--label", "dog", "-n", "1") == [1, 1, 1]
    assert labels_with("restore", file, "--label", "cat,dog") == [0, 1, 0]


def test_classes_to_restyle_to_by_name(
    labels_with: Callable[..., list[int]], cli: Cli, animals: Path, tmp_path: Path
):
    file = pictures(tmp_path / "in.npz")
    assert labels_with("restyle", file, "--label", "dog", "--to", "cat,3") == [0, 2, 0]
    arguments = ("restyle", animals, file, "--label", "dog", "-o", tmp_path / "x.npz")
    assert refusal(cli(*arguments)) == (
        "restyle needs the class to generate: give --to with one of cat, dog, 3, tench, Tinca tinca"
    )
    message = refusal(cli(*arguments, "--to", "tench"))
    assert message.startswith(
        "--to: no class of this model is named 'tench' (did you mean tench, Tinca tinca?)"
    )


def test_labels_of_a_pair_by_name(labels_with: Callable[..., list[int]], tmp_path: Path):
    file = pictures(tmp_path / "in.npz", 1)
    assert labels_with("interpolate", file, file, "--label", "cat,dog", "--frames", "4") == [0, 0, 1, 1]
    assert labels_with("interpolate", file, file, "--label", "tench, Tinca tinca", "--frames", "2") == [3, 3]


def test_labels_in_a_file_are_matched_by_name(
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


def test_labels_of_latents_are_matched_by_name(cli: Cli, animals: Path, tmp_path: Path):
    latents = np.random.default_rng(0).standard_normal((2, 3, 16, 16)).astype(np.float32)
    choices: list[dict[str, Any]] = [
        {"labels": np.array([0, 1]), "classes": np.array(["dog", "cat"])},
        {"labels": np.array(["dog", "cat"])},
    ]
    for arrays in choices:
        np.savez(tmp_path / "latents.npz", latents=latents, **arrays)
        result = cli(
            "generate", animals, "--latents", tmp_path / "latents.npz", "-o", tmp_path / "out.npz", "--force"
        )
        assert result.exit_code == 0, result.stderr
        assert np.load(tmp_path / "out.npz")["labels"].tolist() == [1, 0]
    np.savez(tmp_path / "latents.npz", latents=latents, labels=np.array(["wolf", "cat"]))
    result = cli(
        "generate", animals, "--latents", tmp_path / "latents.npz", "-o", tmp_path / "out.npz", "--force"
    )
    assert "no class of this model is named 'wolf'" in refusal(result)


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
            "`labels` contains fox, but `classes` does not",
        ),
        ({"labels": np.zeros(3)}, "or class names, not float64; convert them with labels.astype(int)"),
        ({"labels": np.zeros((3, 4), int)}, "labels has shape [3, 4]"),
    ],
)
def test_invalid_labels_in_a_file(
    cli: Cli, animals: Path, tmp_path: Path, arrays: dict[str, np.ndarray], message: str
):
    assert message in refusal(
        cli("invert", animals, pictures(tmp_path / "in.npz", 3, **arrays), "-o", tmp_path / "x.npz")
    )


def test_guessed_labels_are_shown_by_name(cli: Cli, animals: Path, tmp_path: Path):
    result = cli(
        "invert", animals, pictures(tmp_path / "in.npz"), "--label", "guess", "-o", tmp_path / "x.npz"
    )
    words = result.stderr.partition("NFE per image): ")[2].partition("\n")[0]
    labels = np.load(tmp_path / "x.npz")["labels"]
    assert words == ", ".join(ANIMALS[label] for label in labels)


def test_labels_in_python(bcm: BCM):
    pandas_column = np.array(["dog", "cat"], object)
    assert bcm.generate(2, labels=pandas_column).shape[0] == 2
    with pytest.raises(LabelError, match="0 labels were given for 2 images"):
        bcm.generate(2, labels=[])
    assert bcm.classes == ANIMALS
    dog = bcm.generate(2, seed=5, labels=1)
    for labels in ("dog", ["dog", "dog"], np.array(["dog", "dog"]), [1, "dog"], ("dog", 1)):
        assert_images_agree(bcm.generate(2, seed=5, labels=labels), dog)
    assert np.abs(bcm.generate(2, seed=5, labels="cat") - dog).max() > 1e-3
    assert len(bcm.generate(labels=["dog", "cat"], seed=[0, 1])) == 2
    wrong: list[tuple[Any, str]] = [
        ("dgo", "did you mean dog"),
        (["dog", "wolf"], "'wolf'"),
        (None, "or one of the names cat, dog"),
        (1.0, "class names"),
    ]
    for labels, message in wrong:
        with pytest.raises(LabelError, match=message):
            bcm.generate(2, labels=labels)


def test_model_without_classes_refuses_a_name(coloured_without_classes: BCM):
    assert coloured_without_classes.classes is None
    with pytest.raises(LabelError, match="no classes"):
        coloured_without_classes.generate(1, labels="dog")


@pytest.fixture
def coloured_without_classes(cli: Cli, tmp_path: Path) -> Iterator[BCM]:
    """A model of colour images that has no classes."""
    plain = replace(TINY, num_classes=None)
    save_checkpoint(tmp_path / "x.safetensors", random_model(plain).network.state_dict(), plain, {}, {})
    assert (
        cli("export", tmp_path / "x.safetensors", "-o", tmp_path / "x.bundle", "--no-verify").exit_code == 0
    )
    with bcm_edge.load(tmp_path / "x.bundle") as bcm:
        yield bcm


def test_browser_page_uses_the_names(bcm: BCM):
    answers = Answers(bcm)
    assert answers.about()["names"] == ANIMALS
    by_name, by_number = (answers.answer("generate", {"seed": 1, "label": label}) for label in ("dog", 1))
    assert by_name["label"] == by_number["label"] == 1
    assert by_name["picture"] == by_number["picture"]
    with pytest.raises(BcmError, match="did you mean dog"):
        answers.answer("generate", {"label": "dgo"})
