"""Weights that are stored in several files, and folders of weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import CONFIG, Weights, holds, loaded
from fixture_types import Cli, Refusal
from refusals import refusal
from safetensors.torch import save_file

FIRST_SHARD, SECOND_SHARD = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
INDEX = "model.safetensors.index.json"


@pytest.fixture
def shards(tmp_path: Path, weights: Weights) -> Path:
    """A folder with two shards and their index."""
    folder = tmp_path / "sharded"
    folder.mkdir()
    names = sorted(weights)
    files = {FIRST_SHARD: names[: len(names) // 2], SECOND_SHARD: names[len(names) // 2 :]}
    for file, tensors in files.items():
        save_file({name: weights[name] for name in tensors}, folder / file)
    weight_map = {name: file for file, tensors in files.items() for name in tensors}
    (folder / INDEX).write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}))
    return folder


def edit_index(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Apply a change to the weight map of the index."""
    index = json.loads((folder / INDEX).read_text())
    change(index["weight_map"])
    (folder / INDEX).write_text(json.dumps(index))


def test_shards_are_read_through_their_index(cli: Cli, shards: Path, weights: Weights) -> None:
    result = cli(
        "export", shards / INDEX, "--config", CONFIG, "--dry-run", "--json", "-o", shards.parent / "x.bundle"
    )
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["parameters"] == sum(tensor.numel() for tensor in weights.values())
    checkpoint = loaded(shards / INDEX)
    assert holds(checkpoint, weights)
    assert (checkpoint.facts.name, checkpoint.size) == (
        "model",
        sum(file.stat().st_size for file in shards.iterdir()),
    )


def test_shards_of_pickles_are_read_as_well(tmp_path: Path, weights: Weights) -> None:
    torch.save(weights, tmp_path / "pytorch_model-00001-of-00001.bin")
    index = {"weight_map": dict.fromkeys(weights, "pytorch_model-00001-of-00001.bin")}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    assert holds(loaded(tmp_path / "pytorch_model.bin.index.json"), weights)


def test_hash_of_shards_depends_on_the_weights(shards: Path, weights: Weights) -> None:
    before = loaded(shards).sha256()
    assert loaded(shards / INDEX).sha256() == before
    tensors = {
        name: tensor * 2 for name, tensor in weights.items() if name in sorted(weights)[: len(weights) // 2]
    }
    save_file(tensors, shards / FIRST_SHARD)
    assert loaded(shards).sha256() != before


def test_shards_in_a_cache_of_links_are_read(shards: Path, tmp_path: Path, weights: Weights) -> None:
    (tmp_path / "snapshot").mkdir()
    for file in shards.iterdir():
        (tmp_path / "snapshot" / file.name).symlink_to(file)
    assert holds(loaded(tmp_path / "snapshot"), weights)


def test_one_shard_alone(refuse_checkpoint: Refusal, shards: Path) -> None:
    assert (
        refuse_checkpoint(shards / FIRST_SHARD)
        == f"one of 2 shards, each with a part of the weights; give their index: {shards / INDEX}"
    )
    (shards / INDEX).unlink()
    assert refuse_checkpoint(shards / FIRST_SHARD).endswith(f"download all of them and their index, {INDEX}")
    assert (
        refuse_checkpoint(shards)
        == "shards of weights without their index; download the file that ends in .index.json as well"
    )


def test_shard_that_is_missing(refuse_checkpoint: Refusal, shards: Path) -> None:
    (shards / SECOND_SHARD).unlink()
    assert (
        refuse_checkpoint(shards / INDEX)
        == f"1 of 2 shards are missing ({SECOND_SHARD}); download them as well"
    )


@pytest.mark.parametrize(
    "outside", ["../model.safetensors", "/etc/hostname", "a/../../x.safetensors", ".", ""]
)
def test_shard_outside_the_folder(
    refuse_checkpoint: Refusal, shards: Path, weights: Weights, outside: str
) -> None:
    save_file(weights, shards.parent / "model.safetensors")
    edit_index(shards, lambda weight_map: weight_map.update(surplus=outside))
    assert (
        refuse_checkpoint(shards / INDEX)
        == f"refused, because the shard {outside} lies outside the folder of the index"
    )


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (
            lambda m: m.update(surplus=FIRST_SHARD),
            f"the index and its shard {FIRST_SHARD} differ in surplus; download both again",
        ),
        (
            lambda m: m.pop("input_blocks.0.0.bias"),
            f"the index and its shard {FIRST_SHARD} differ in input_blocks.0.0.bias; ",
        ),
        (lambda m: m.update({"input_blocks.0.0.bias": SECOND_SHARD}), "differ in input_blocks.0.0.bias"),
        (
            lambda m: m.update(surplus=5),
            "not an index of shards: weight_map must map names of tensors to names of files",
        ),
        (lambda m: m.clear(), "not an index of shards"),
        (lambda m: m.update(surplus="x" * 300), "a shard cannot be read (File name too long)"),
    ],
    ids=["more", "less", "swapped", "number", "empty", "long name"],
)
def test_index_that_does_not_match_its_shards(
    refuse_checkpoint: Refusal,
    shards: Path,
    change: Callable[[dict[str, Any]], object],
    problem: str,
) -> None:
    edit_index(shards, change)
    assert problem in refuse_checkpoint(shards / INDEX)


def test_shard_that_is_a_git_lfs_pointer(cli: Cli, shards: Path) -> None:
    (shards / SECOND_SHARD).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    message = refusal(cli("export", shards, "--config", CONFIG, "-o", shards.parent / "x.bundle"))
    assert message.startswith(f"{shards / SECOND_SHARD}: a Git LFS pointer")


# Folders


def test_folder_with_one_weights_file(tmp_path: Path, weights: Weights) -> None:
    save_file(weights, tmp_path / "diffusion_pytorch_model.safetensors")
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / ".gitattributes").write_text("")
    assert loaded(tmp_path).files == (tmp_path / "diffusion_pytorch_model.safetensors",)


def test_folder_with_two_weights_files(refuse_checkpoint: Refusal, tmp_path: Path) -> None:
    for name in ("a.pt", "b.safetensors", "notes.txt"):
        (tmp_path / name).touch()
    assert (
        refuse_checkpoint(tmp_path) == "a folder with 2 weights files (a.pt, b.safetensors); give one of them"
    )


def test_folder_without_weights(refuse_checkpoint: Refusal, tmp_path: Path) -> None:
    (tmp_path / "folder" / "unet").mkdir(parents=True)
    (tmp_path / "folder" / "notes.txt").touch()
    expected = "a folder without a weights file; it contains notes.txt, unet/"
    assert refuse_checkpoint(tmp_path / "folder") == expected


def test_bundle_in_place_of_a_checkpoint(refuse_checkpoint: Refusal, digits_bundle: Path) -> None:
    assert (
        refuse_checkpoint(digits_bundle)
        == f"a bundle already, not a checkpoint. Commands take it as it is: bcm-edge inspect {digits_bundle}"
    )
    for name in ("forward.onnx", "weights.bin"):
        assert refuse_checkpoint(digits_bundle / name).startswith("a file of a bundle, not a checkpoint.")
