"""Files that are not weights, such as incomplete downloads, are identified in one line."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import CONFIG, Weights, holds, loaded, saved
from fixture_types import Cli, Refusal
from refusals import refusal
from safetensors.torch import save_file


def zipped(*files: Path, **contents: bytes) -> bytes:
    """A zip archive of these files and of contents under their names."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for file in files:
            archive.write(file, f"checkpoints/{file.name}")
        for name, content in contents.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def tarred(mode: Any) -> bytes:
    """A tar archive with one file. mode: of tarfile.open."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        archive.add(CONFIG, "model_weights.pt")
    return buffer.getvalue()


def array(save: Callable[..., None], *arguments: Any, **arrays: Any) -> bytes:
    """The bytes that np.save or np.savez writes."""
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
            "a Git LFS pointer, not the weights (1119.8 MB). "
            "Get them, in the folder of the repository, with: git lfs pull",
        ),
        (
            "m.pt",
            b"\n<!DOCTYPE html><html><title>Sign in</title>",
            "an HTML page, not weights: the download returned a web page",
        ),
        ("m.pt", b'<?xml version="1.0"?><Error><Code>AccessDenied', "an XML document, not weights"),
        ("m.pt", b'{"message": "Not Found"}', "a JSON file without weights. "),
        (
            "tiny.json",
            CONFIG.read_bytes(),
            "a JSON file without weights. Give the weights file, and pass the configuration",
        ),
        ("m.index.json", b'{"weight_map": ', "damaged or truncated JSON ("),
        ("m.pt", b"", "an empty file. Download or copy it again"),
        ("m.pt", bytes(4096), "a file that begins with zeros, like an interrupted download"),
        (
            "m.zip",
            zipped(CONFIG),
            "a zip archive that torch.save did not write; it contains checkpoints/tiny.json. Unpack it",
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
            "an HDF5 file, as written by Keras. Give a torch state dict or safetensors",
        ),
        ("m.ckpt", bytes(range(200)) + TABLE_END, "a part of a TensorFlow checkpoint. "),
        ("model.ckpt.data-00000-of-00001", bytes(range(1, 201)) * 3, "a part of a TensorFlow checkpoint. "),
        ("m.gguf", b"GGUF\3" + bytes(600), "a GGUF file. "),
        (
            "m.onnx",
            b"\x08\x07\x12\x07pytorch" + bytes(600),
            "an ONNX graph. Give the checkpoint that it was made from",
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
def test_other_file_formats_are_identified(
    refuse_checkpoint: Refusal, tmp_path: Path, name: str, content: bytes, problem: str
) -> None:
    (tmp_path / name).write_bytes(content)
    assert refuse_checkpoint(tmp_path / name).startswith(problem)


def test_unpacked_torch_file_can_be_packed_again(
    refuse_checkpoint: Refusal, tmp_path: Path, weights: Weights
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
    for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # zip -0, and zip without options
        with zipfile.ZipFile(tmp_path / "again.pt", "w", compression) as archive:
            for file in sorted((tmp_path / "download").rglob("*")):
                archive.write(file, file.relative_to(tmp_path / "download"))
        assert holds(loaded(tmp_path / "again.pt"), weights)


def test_torchscript_archive(refuse_checkpoint: Refusal, tmp_path: Path) -> None:
    script = b"def forward(self, x):\n    return x\n"
    contents = {"m/data.pkl": b"\x80\x02}.", "m/constants.pkl": b"\x80\x02).", "m/code/__torch__.py": script}
    (tmp_path / "script.pt").write_bytes(zipped(**contents))
    assert refuse_checkpoint(tmp_path / "script.pt").startswith(
        "a TorchScript archive, which contains code. Save the state dict alone"
    )


def test_safetensors_whose_length_looks_like_another_format(tmp_path: Path, weights: Weights) -> None:
    """The first 8 bytes are a length. 0x4b50 reads "PK", as in a zip archive, and 0x7b reads "{"."""
    save_file(weights, tmp_path / "m.safetensors")
    data = (tmp_path / "m.safetensors").read_bytes()
    header = data[8 : 8 + int.from_bytes(data[:8], "little")]
    for low, mask in ((0x4B50, 0xFFFF), (0x7B, 0xFF)):
        length = next(n for n in range(len(header), len(header) + 70_000) if n & mask == low)
        (tmp_path / "padded.safetensors").write_bytes(
            length.to_bytes(8, "little") + header.ljust(length) + data[8 + len(header) :]
        )
        assert holds(loaded(tmp_path / "padded.safetensors"), weights)


def test_pipe_is_refused_without_waiting(refuse_checkpoint: Refusal, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.pt")
    assert (
        refuse_checkpoint(tmp_path / "pipe.pt") == "a device or a pipe; a checkpoint must be a regular file"
    )


def test_url_is_not_downloaded(cli: Cli, tmp_path: Path) -> None:
    message = refusal(
        cli("export", "https://example.org/ema.pt", "--config", CONFIG, "-o", tmp_path / "x.bundle")
    )
    assert message.endswith("a URL, not a file. Nothing is downloaded; download the file, and give its path")
