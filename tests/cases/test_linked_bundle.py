"""Bundles that consist of symbolic links, and paths that are not bundles."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from fixture_types import Cli
from refusals import refusal

from bcm_edge.runtime.storage.bundle import open_bundle


@pytest.fixture
def hugging_face(digits_bundle: Path, tmp_path: Path) -> Path:
    """A bundle in the layout of a Hugging Face cache: every file is a link to a blob outside the folder."""
    snapshot = tmp_path / "hub" / "snapshots" / "3fa9c1"
    snapshot.mkdir(parents=True)
    (tmp_path / "hub" / "blobs").mkdir()
    for index, file in enumerate(sorted(digits_bundle.iterdir())):
        shutil.copy(file, tmp_path / "hub" / "blobs" / f"blob{index}")
        (snapshot / file.name).symlink_to(f"../../blobs/blob{index}")
    return snapshot


@pytest.fixture
def kubernetes(digits_bundle: Path, tmp_path: Path) -> Path:
    """A bundle in a volume of Kubernetes: links through ..data, all inside the folder."""
    volume = tmp_path / "volume.bundle"
    shutil.copytree(digits_bundle, volume / "..2024_01_01")
    (volume / "..data").symlink_to("..2024_01_01")
    for file in digits_bundle.iterdir():
        (volume / file.name).symlink_to(f"..data/{file.name}")
    return volume


@pytest.mark.parametrize("command", ["inspect", "generate", "verify"])
def test_links_to_the_outside_are_refused_with_a_command_that_copies(
    hugging_face: Path, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.chdir(tmp_path)
    more = ("--label", 3, "-o", tmp_path / "out.png") if command == "generate" else ()
    message = refusal(cli(command, hugging_face, *more))
    assert message.startswith(
        f"{hugging_face}: manifest.json is a link to a file outside the bundle, "
        "and such links are not followed"
    )
    command_line = message.partition("with: ")[2]
    assert command_line == f"cp -rL {hugging_face} 3fa9c1-copy.bundle"
    subprocess.run(shlex.split(command_line), check=True)
    assert cli(command, "3fa9c1-copy.bundle", *more).exit_code == 0


def test_command_that_copies_quotes_the_name(bundle_copy: Path, cli: Cli, tmp_path: Path) -> None:
    bundle = bundle_copy.rename(tmp_path / "my digits.bundle")
    (bundle / "weights.bin").rename(tmp_path / "w.bin")
    (bundle / "weights.bin").symlink_to("../w.bin")
    message = refusal(cli("inspect", bundle))
    assert message.startswith(f"{bundle}: weights.bin is a link to a file outside the bundle")
    assert shlex.split(message.partition("with: ")[2]) == ["cp", "-rL", str(bundle), "my digits-copy.bundle"]


def test_link_to_a_missing_file(bundle_copy: Path, cli: Cli, tmp_path: Path) -> None:
    (bundle_copy / "weights.bin").unlink()
    (bundle_copy / "weights.bin").symlink_to("../.git/annex/objects/weights")
    message = refusal(cli("inspect", bundle_copy))
    assert message.startswith(
        f"{bundle_copy}: weights.bin is a link to {tmp_path}/.git/annex/objects/weights, which does not exist"
    )


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_links_inside_a_bundle_are_followed(kubernetes: Path, cli: Cli, tmp_path: Path, backend: str) -> None:
    pytest.importorskip(backend, reason=f"{backend} is not installed")
    assert cli("inspect", kubernetes).exit_code == 0
    generated = cli("generate", kubernetes, "--label", 3, "--backend", backend, "-o", tmp_path / "out.png")
    assert generated.exit_code == 0, generated.stderr
    assert cli("verify", kubernetes, "--backend", backend).exit_code == 0


def test_file_that_a_link_points_to_is_checked(kubernetes: Path, cli: Cli) -> None:
    data = kubernetes / "..2024_01_01" / "weights.bin"
    content = bytearray(data.read_bytes())
    content[1000] ^= 1
    data.write_bytes(content)
    assert refusal(cli("inspect", kubernetes)).startswith(
        f"{kubernetes}: weights.bin is not the file that was exported"
    )


def test_bundle_folder_may_be_a_link(digits_bundle: Path, cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(digits_bundle)
    assert cli("inspect", tmp_path / "link").exit_code == 0
    assert cli("generate", tmp_path / "link", "--label", 3, "-o", tmp_path / "out.png").exit_code == 0
    assert open_bundle(tmp_path / "link").manifest.model.sample_shape == (1, 8, 8)


# Paths that are not bundles


@pytest.mark.parametrize("name", ["manifest.json", "weights.bin", "forward.onnx"])
def test_file_of_a_bundle_in_place_of_its_folder(digits_bundle: Path, cli: Cli, name: str) -> None:
    expected = f"{digits_bundle / name}: not a bundle (a file of a bundle); give the folder: {digits_bundle}"
    assert refusal(cli("inspect", digits_bundle / name)) == expected


@pytest.mark.parametrize(
    ("name", "bundle"),
    [
        ("my.safetensors", "my.bundle"),
        ("my model.safetensors", "my model.bundle"),
        ("it's.pt", "it's.bundle"),
        ("EMA.PTH", "EMA.bundle"),
        ("epoch=3.ckpt", "epoch=3.bundle"),
        ("model.safetensors.index.json", "model.bundle"),
    ],
)
def test_checkpoint_in_place_of_a_bundle(cli: Cli, tmp_path: Path, name: str, bundle: str) -> None:
    file = tmp_path / name
    file.write_bytes(b"weights")
    message = refusal(cli("generate", file, "-o", tmp_path / "out.png"))
    assert message.startswith(f"{file}: not a bundle (a checkpoint); make a bundle from it with: ")
    assert shlex.split(message.partition("with: ")[2]) == export_line(file, tmp_path / bundle)


def export_line(checkpoint: Path | str, bundle: Path) -> list[str]:
    """Return the words of the command that exports a checkpoint."""
    return ["bcm-edge", "export", str(checkpoint), "-o", str(bundle)]


def test_checkpoint_whose_name_begins_like_an_option(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("-ema.pt").write_bytes(b"weights")
    message = refusal(cli("generate", "-o", tmp_path / "out.png", "--", "-ema.pt"))
    assert message.endswith(" with: bcm-edge export ./-ema.pt -o ./-ema.bundle")


def test_onnx_file_in_place_of_a_bundle(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "my model.onnx"
    file.write_bytes(b"graph")
    message = refusal(cli("generate", file, "-o", tmp_path / "out.png"))
    assert message.startswith(f"{file}: not a bundle (an ONNX file); ")
    words = shlex.split(message.partition("made from: ")[2])
    assert words == export_line("CHECKPOINT", tmp_path / "my model.bundle")


@pytest.mark.parametrize("name", ["my.safetensors", "my.onnx", "my.zip"])
def test_missing_file_is_not_proposed_as_a_bundle(cli: Cli, tmp_path: Path, name: str) -> None:
    message = refusal(cli("inspect", tmp_path / name))
    assert message == f"{tmp_path / name}: not a bundle (no such file)"


def test_folder_of_a_checkpoint_in_place_of_a_bundle(cli: Cli, tmp_path: Path) -> None:
    for name in ("model.safetensors.index.json", "model-00001-of-00002.safetensors", "config.json"):
        (tmp_path / name).write_bytes(b"weights")
    message = refusal(cli("inspect", tmp_path))
    start = f"{tmp_path}: not a bundle (a folder with a checkpoint); make a bundle from it with: "
    assert message.startswith(start)
    index = tmp_path / "model.safetensors.index.json"
    assert shlex.split(message.removeprefix(start)) == export_line(index, tmp_path / "model.bundle")


def test_folder_of_two_checkpoints_in_place_of_a_bundle(cli: Cli, tmp_path: Path) -> None:
    for name in ("b.pt", "a.pt"):
        (tmp_path / name).write_bytes(b"weights")
    message = refusal(cli("inspect", tmp_path))
    start = f"{tmp_path}: not a bundle (a folder with checkpoints: {tmp_path}/a.pt, {tmp_path}/b.pt); "
    assert message.startswith(start)
    assert message.endswith(f" such as: bcm-edge export {tmp_path}/a.pt -o {tmp_path}/a.bundle")


@pytest.mark.parametrize("name", ["digits.zip", "digits.tar.gz", "digits.tar"])
def test_archive_in_place_of_a_bundle(cli: Cli, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"PK\3\4")
    expected = (
        f"{tmp_path / name}: not a bundle (an archive); "
        "unpack it, and give the folder that contains manifest.json"
    )
    assert refusal(cli("inspect", tmp_path / name)) == expected


def test_parent_folder_of_a_bundle(hugging_face: Path, bundle_copy: Path, cli: Cli, tmp_path: Path) -> None:
    assert (
        refusal(cli("inspect", tmp_path))
        == f"{tmp_path}: not a bundle (a folder without manifest.json); bundles in it: {bundle_copy}"
    )
    assert refusal(cli("inspect", tmp_path / "hub")).endswith(f"bundles in it: {hugging_face}")


def test_misspelt_name_of_a_bundle(bundle_copy: Path, cli: Cli, tmp_path: Path) -> None:
    expected = f"{tmp_path}/copy.bundel: not a bundle (no such folder); did you mean {bundle_copy}?"
    assert refusal(cli("inspect", tmp_path / "copy.bundel")) == expected


@pytest.mark.parametrize("name", ["manifest.json", "weights.bin"])
def test_git_lfs_pointer_in_place_of_a_file(bundle_copy: Path, cli: Cli, name: str) -> None:
    (bundle_copy / name).write_text(
        f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 3038208\n"
    )
    expected = f"{bundle_copy}: {name} is a Git LFS pointer, not the file; get the files with: git lfs pull"
    assert refusal(cli("inspect", bundle_copy)) == expected


def test_name_that_is_too_long(cli: Cli) -> None:
    assert refusal(cli("inspect", "x" * 300)) == f"{'x' * 300}: cannot be read (File name too long)"


def test_output_does_not_replace_a_file_of_a_linked_bundle(cli: Cli, kubernetes: Path) -> None:
    result = cli("generate", kubernetes, "--label", 3, "-o", kubernetes / "golden.npz", "--force")
    assert refusal(result) == f"{kubernetes}/golden.npz is a file of the bundle; choose another output"
    assert open_bundle(kubernetes)
