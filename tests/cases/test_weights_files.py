"""Weights files as downloads leave them: shards, folders, and files that are something else, each read or named in one line."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints import CONFIG, Weights, holds, loaded, saved
from fixture_types import Cli
from refusals import refusal
from safetensors.torch import save_file

FIRST_SHARD, SECOND_SHARD = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
INDEX = "model.safetensors.index.json"


# Shards


@pytest.fixture
def shards(tmp_path: Path, weights: Weights) -> Path:
    """A folder with two shards and their index."""
    folder = tmp_path / "sharded"
    folder.mkdir()
    names = sorted(weights)
    files = {FIRST_SHARD: names[: len(names) // 2], SECOND_SHARD: names[len(names) // 2 :]}
    for file, held in files.items():
        save_file({name: weights[name] for name in held}, folder / file)
    weight_map = {name: file for file, held in files.items() for name in held}
    (folder / INDEX).write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}))
    return folder


def edit_index(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    index = json.loads((folder / INDEX).read_text())
    change(index["weight_map"])
    (folder / INDEX).write_text(json.dumps(index))


def test_shards_are_read_through_their_index(cli: Cli, shards: Path, weights: Weights) -> None:
    ended = cli(
        "export", shards / INDEX, "--config", CONFIG, "--dry-run", "--json", "-o", shards.parent / "x.bundle"
    )
    assert ended.exit_code == 0, ended.stderr
    assert json.loads(ended.stdout)["parameters"] == sum(tensor.numel() for tensor in weights.values())
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


def test_hash_of_shards_tells_which_weights_they_hold(shards: Path, weights: Weights) -> None:
    before = loaded(shards).sha256()
    assert loaded(shards / INDEX).sha256() == before
    held = {
        name: tensor * 2 for name, tensor in weights.items() if name in sorted(weights)[: len(weights) // 2]
    }
    save_file(held, shards / FIRST_SHARD)
    assert loaded(shards).sha256() != before


def test_shards_in_a_cache_of_links_are_read(shards: Path, tmp_path: Path, weights: Weights) -> None:
    (tmp_path / "snapshot").mkdir()
    for file in shards.iterdir():
        (tmp_path / "snapshot" / file.name).symlink_to(file)
    assert holds(loaded(tmp_path / "snapshot"), weights)


def test_one_shard_alone(refuse_checkpoint: Callable[[Path], str], shards: Path) -> None:
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


def test_shard_that_is_missing(refuse_checkpoint: Callable[[Path], str], shards: Path) -> None:
    (shards / SECOND_SHARD).unlink()
    assert (
        refuse_checkpoint(shards / INDEX)
        == f"1 of 2 shards are missing ({SECOND_SHARD}); download them as well"
    )


@pytest.mark.parametrize(
    "outside", ["../model.safetensors", "/etc/hostname", "a/../../x.safetensors", ".", ""]
)
def test_shard_outside_the_folder(
    refuse_checkpoint: Callable[[Path], str], shards: Path, weights: Weights, outside: str
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
def test_index_that_contradicts_its_shards(
    refuse_checkpoint: Callable[[Path], str],
    shards: Path,
    change: Callable[[dict[str, Any]], object],
    problem: str,
) -> None:
    edit_index(shards, change)
    assert problem in refuse_checkpoint(shards / INDEX)


def test_shard_that_is_a_pointer_is_named(cli: Cli, shards: Path) -> None:
    (shards / SECOND_SHARD).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    message = refusal(cli("export", shards, "--config", CONFIG, "-o", shards.parent / "x.bundle"))
    assert message.startswith(f"{shards / SECOND_SHARD}: a Git LFS pointer")


# Folders


def test_folder_with_one_weights_file(tmp_path: Path, weights: Weights) -> None:
    save_file(weights, tmp_path / "diffusion_pytorch_model.safetensors")
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / ".gitattributes").write_text("")
    assert loaded(tmp_path).files == (tmp_path / "diffusion_pytorch_model.safetensors",)


def test_folder_with_two_weights_files(refuse_checkpoint: Callable[[Path], str], tmp_path: Path) -> None:
    for name in ("a.pt", "b.safetensors", "notes.txt"):
        (tmp_path / name).touch()
    assert (
        refuse_checkpoint(tmp_path) == "a folder with 2 weights files (a.pt, b.safetensors); give one of them"
    )


def test_folder_without_weights(refuse_checkpoint: Callable[[Path], str], tmp_path: Path) -> None:
    (tmp_path / "folder" / "unet").mkdir(parents=True)
    (tmp_path / "folder" / "notes.txt").touch()
    assert (
        refuse_checkpoint(tmp_path / "folder") == "a folder without a weights file; it holds notes.txt, unet/"
    )


def test_bundle_and_its_files(refuse_checkpoint: Callable[[Path], str], digits_bundle: Path) -> None:
    assert (
        refuse_checkpoint(digits_bundle)
        == f"a bundle already, not a checkpoint. Commands take it as it is: bcm-edge inspect {digits_bundle}"
    )
    for name in ("forward.onnx", "weights.bin"):
        assert refuse_checkpoint(digits_bundle / name).startswith("a file of a bundle, not a checkpoint.")


# Downloads


def zipped(*files: Path, **contents: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for file in files:
            archive.write(file, f"checkpoints/{file.name}")
        for name, content in contents.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def tarred(mode: Any) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        archive.add(CONFIG, "model_weights.pt")
    return buffer.getvalue()


def array(save: Callable[..., None], *arguments: Any, **arrays: Any) -> bytes:
    buffer = io.BytesIO()
    save(buffer, *arguments, **arrays)
    return buffer.getvalue()


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 1119800000\n"
TABLE_END = bytes.fromhex("57fb808b247547db")


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        (
            "m.safetensors",
            LFS,
            "a Git LFS pointer, not the weights (1119.8 MB). Fetch them, in the folder of the repository, with: git lfs pull",
        ),
        (
            "m.pt",
            b"\n<!DOCTYPE html><html><title>Sign in</title>",
            "an HTML page, not weights: the download ended at a web page",
        ),
        ("m.pt", b'<?xml version="1.0"?><Error><Code>AccessDenied', "an XML document, not weights"),
        ("m.pt", b'{"message": "Not Found"}', "a JSON file without weights. "),
        (
            "tiny.json",
            CONFIG.read_bytes(),
            "a JSON file without weights. A network's configuration is given with --config FILE.json",
        ),
        ("m.index.json", b'{"weight_map": ', "damaged or truncated JSON ("),
        ("m.pt", b"", "an empty file. Download or copy it again"),
        ("m.pt", bytes(4096), "a file that begins with zeros, as an interrupted download leaves it"),
        (
            "m.zip",
            zipped(CONFIG),
            "a zip archive that torch.save did not write; it holds checkpoints/tiny.json. Unpack it",
        ),
        ("m.zip", zipped(), "an empty zip archive"),
        ("m.npz", array(np.savez, weights=np.zeros(3)), "an npz archive of numpy arrays (weights.npy). "),
        ("m.npy", array(np.save, np.zeros(300)), "a numpy array. "),
        ("m.tar", tarred("w"), "a tar archive. Unpack it with: tar -xf "),
        ("m.tar.gz", tarred("w:gz"), "a gzip archive. Unpack it with: tar -xzf "),
        ("m.pt.gz", gzip.compress(bytes(999)), "a gzip archive. Unpack it with: gunzip -k "),
        (
            "m.h5",
            b"\x89HDF\r\n\x1a\n" + bytes(600),
            "an HDF5 file, as Keras writes them. Give a torch state dict or safetensors",
        ),
        ("m.ckpt", bytes(range(200)) + TABLE_END, "a part of a TensorFlow checkpoint. "),
        ("model.ckpt.data-00000-of-00001", bytes(range(1, 201)) * 3, "a part of a TensorFlow checkpoint. "),
        ("m.gguf", b"GGUF\3" + bytes(600), "a GGUF file. "),
        (
            "m.onnx",
            b"\x08\x07\x12\x07pytorch" + bytes(600),
            "an ONNX graph. Give the checkpoint that it was made of",
        ),
        ("m.engine", b"ftrt" + bytes(600), "a TensorRT engine. "),
        (
            "m.pkl",
            pickle.dumps({"a": bytes(999)}),
            "a Python pickle that torch.save did not write. Pickles can run code, so it is not read",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) and "." in value[:20] and " " not in value else "",
)
def test_file_that_is_something_else(
    refuse_checkpoint: Callable[[Path], str], tmp_path: Path, name: str, content: bytes, problem: str
) -> None:
    (tmp_path / name).write_bytes(content)
    assert refuse_checkpoint(tmp_path / name).startswith(problem)


def test_unpacked_torch_file_and_the_way_back(
    refuse_checkpoint: Callable[[Path], str], tmp_path: Path, weights: Weights
) -> None:
    with zipfile.ZipFile(saved(tmp_path / "ema.pt", weights)) as archive:
        archive.extractall(tmp_path / "download")
    pack = f"Pack it again, and give the file: cd {tmp_path / 'download'} && zip -0 -r ema.pt ema"
    for path in (
        tmp_path / "download",
        tmp_path / "download" / "ema",
        tmp_path / "download" / "ema" / "data.pkl",
    ):
        assert refuse_checkpoint(path).endswith(pack)
    for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # zip -0, and zip as people use it
        with zipfile.ZipFile(tmp_path / "again.pt", "w", compression) as archive:
            for file in sorted((tmp_path / "download").rglob("*")):
                archive.write(file, file.relative_to(tmp_path / "download"))
        assert holds(loaded(tmp_path / "again.pt"), weights)


def test_torchscript(refuse_checkpoint: Callable[[Path], str], tmp_path: Path) -> None:
    script = b"def forward(self, x):\n    return x\n"
    contents = {"m/data.pkl": b"\x80\x02}.", "m/constants.pkl": b"\x80\x02).", "m/code/__torch__.py": script}
    (tmp_path / "script.pt").write_bytes(zipped(**contents))
    assert refuse_checkpoint(tmp_path / "script.pt").startswith(
        "a TorchScript archive, which holds code. Save the state dict alone"
    )


def test_safetensors_whose_length_looks_like_another_format(tmp_path: Path, weights: Weights) -> None:
    """The first 8 bytes are a length: 0x4b50 reads "PK", as a zip archive begins, and 0x7b reads "{"."""
    save_file(weights, tmp_path / "m.safetensors")
    data = (tmp_path / "m.safetensors").read_bytes()
    header = data[8 : 8 + int.from_bytes(data[:8], "little")]
    for low, mask in ((0x4B50, 0xFFFF), (0x7B, 0xFF)):
        length = next(n for n in range(len(header), len(header) + 70_000) if n & mask == low)
        (tmp_path / "padded.safetensors").write_bytes(
            length.to_bytes(8, "little") + header.ljust(length) + data[8 + len(header) :]
        )
        assert holds(loaded(tmp_path / "padded.safetensors"), weights)


def test_pipe_is_not_waited_for(refuse_checkpoint: Callable[[Path], str], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.pt")
    assert (
        refuse_checkpoint(tmp_path / "pipe.pt") == "a device or a pipe; a checkpoint must be a regular file"
    )


def test_address_is_not_fetched(cli: Cli, tmp_path: Path) -> None:
    message = refusal(
        cli("export", "https://example.org/ema.pt", "--config", CONFIG, "-o", tmp_path / "x.bundle")
    )
    assert message.endswith(
        "an address, not a file. Nothing is downloaded; download the file, and give its path"
    )
