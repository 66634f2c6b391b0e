"""Bundles made of symbolic links, and what people give in place of a bundle."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from refusals import refusal

from bcm_edge.runtime.storage.bundle import open_bundle

Cli = Callable[..., Result]


@pytest.fixture
def hugging_face(digits_bundle: Path, tmp_path: Path) -> Path:
    """A bundle as a Hugging Face cache keeps one: every file a link to a blob outside the folder, under another name."""
    snapshot = tmp_path / "hub" / "snapshots" / "3fa9c1"
    snapshot.mkdir(parents=True)
    (tmp_path / "hub" / "blobs").mkdir()
    for index, file in enumerate(sorted(digits_bundle.iterdir())):
        shutil.copy(file, tmp_path / "hub" / "blobs" / f"blob{index}")
        (snapshot / file.name).symlink_to(f"../../blobs/blob{index}")
    return snapshot


@pytest.fixture
def kubernetes(digits_bundle: Path, tmp_path: Path) -> Path:
    """A bundle as Kubernetes mounts a volume: links through ..data, all inside the folder."""
    volume = tmp_path / "volume.bundle"
    shutil.copytree(digits_bundle, volume / "..2024_01_01")
    (volume / "..data").symlink_to("..2024_01_01")
    for file in digits_bundle.iterdir():
        (volume / file.name).symlink_to(f"..data/{file.name}")
    return volume


@pytest.mark.parametrize("command", ["inspect", "generate", "verify"])
def test_links_out_of_a_bundle_are_refused_with_a_line_that_copies_it(
    hugging_face: Path, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.chdir(tmp_path)
    more = ("--label", 3, "-o", tmp_path / "out.png") if command == "generate" else ()
    message = refusal(cli(command, hugging_face, *more))
    assert message.startswith(
        f"{hugging_face}: manifest.json is a link to a file outside the bundle, and such links are not followed"
    )
    copy = message.partition("with: ")[2]
    assert copy == f"cp -rL {hugging_face} 3fa9c1-copy.bundle"
    subprocess.run(shlex.split(copy), check=True)
    assert cli(command, "3fa9c1-copy.bundle", *more).exit_code == 0


def test_line_that_copies_a_bundle_quotes_its_name(bundle_copy: Path, cli: Cli, tmp_path: Path) -> None:
    bundle = bundle_copy.rename(tmp_path / "my digits.bundle")
    (bundle / "weights.bin").rename(tmp_path / "w.bin")
    (bundle / "weights.bin").symlink_to("../w.bin")
    message = refusal(cli("inspect", bundle))
    assert message.startswith(f"{bundle}: weights.bin is a link to a file outside the bundle")
    assert shlex.split(message.partition("with: ")[2]) == ["cp", "-rL", str(bundle), "my digits-copy.bundle"]


def test_link_to_a_file_that_was_not_fetched(bundle_copy: Path, cli: Cli, tmp_path: Path) -> None:
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
    made = cli("generate", kubernetes, "--label", 3, "--backend", backend, "-o", tmp_path / "out.png")
    assert made.exit_code == 0, made.stderr
    assert cli("verify", kubernetes, "--backend", backend).exit_code == 0


def test_file_behind_links_inside_a_bundle_is_checked_as_any_other(kubernetes: Path, cli: Cli) -> None:
    data = kubernetes / "..2024_01_01" / "weights.bin"
    content = bytearray(data.read_bytes())
    content[1000] ^= 1
    data.write_bytes(content)
    assert refusal(cli("inspect", kubernetes)).startswith(
        f"{kubernetes}: weights.bin is not the file that was exported"
    )


def test_folder_of_the_bundle_may_be_a_link(digits_bundle: Path, cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(digits_bundle)
    assert cli("inspect", tmp_path / "link").exit_code == 0
    assert cli("generate", tmp_path / "link", "--label", 3, "-o", tmp_path / "out.png").exit_code == 0
    assert open_bundle(tmp_path / "link").manifest.model.sample_shape == (1, 8, 8)


# In place of a bundle


@pytest.mark.parametrize("name", ["manifest.json", "weights.bin", "forward.onnx"])
def test_file_of_a_bundle(digits_bundle: Path, cli: Cli, name: str) -> None:
    expected = f"{digits_bundle / name}: not a bundle (a file of a bundle); give the folder: {digits_bundle}"
    assert refusal(cli("inspect", digits_bundle / name)) == expected


def test_checkpoint_is_to_be_exported_and_not_over_itself(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "my model.safetensors"
    file.write_bytes(b"weights")
    message = refusal(cli("generate", file, "-o", tmp_path / "out.png"))
    assert message.startswith(f"{file}: not a bundle (a checkpoint); make a bundle from it with: ")
    assert shlex.split(message.partition("with: ")[2]) == [
        "bcm-edge",
        "export",
        str(file),
        "-o",
        f"{tmp_path}/my model.bundle",
    ]


@pytest.mark.parametrize("name", ["digits.zip", "digits.tar.gz", "digits.tar"])
def test_archive_is_to_be_unpacked(cli: Cli, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"PK\3\4")
    expected = f"{tmp_path / name}: not a bundle (an archive); unpack it, and give the folder that contains manifest.json"
    assert refusal(cli("inspect", tmp_path / name)) == expected


def test_folder_around_a_bundle(hugging_face: Path, bundle_copy: Path, cli: Cli, tmp_path: Path) -> None:
    assert (
        refusal(cli("inspect", tmp_path))
        == f"{tmp_path}: not a bundle (a folder without manifest.json); bundles in it: {bundle_copy}"
    )
    assert refusal(cli("inspect", tmp_path / "hub")).endswith(f"bundles in it: {hugging_face}")


def test_misspelt_bundle(bundle_copy: Path, cli: Cli, tmp_path: Path) -> None:
    expected = f"{tmp_path}/copy.bundel: not a bundle (no such folder); did you mean {bundle_copy}?"
    assert refusal(cli("inspect", tmp_path / "copy.bundel")) == expected


@pytest.mark.parametrize("name", ["manifest.json", "weights.bin"])
def test_git_lfs_pointer_in_place_of_a_file(bundle_copy: Path, cli: Cli, name: str) -> None:
    (bundle_copy / name).write_text(
        f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 3038208\n"
    )
    expected = f"{bundle_copy}: {name} is a Git LFS pointer, not the file; get the files with: git lfs pull"
    assert refusal(cli("inspect", bundle_copy)) == expected


def test_name_that_no_file_system_takes(cli: Cli) -> None:
    assert refusal(cli("inspect", "x" * 300)) == f"{'x' * 300}: cannot be read (File name too long)"


def test_an_output_does_not_replace_a_file_of_a_linked_bundle(cli: Cli, kubernetes: Path) -> None:
    ended = cli("generate", kubernetes, "--label", 3, "-o", kubernetes / "golden.npz", "--force")
    assert refusal(ended) == f"{kubernetes}/golden.npz is a file of the bundle; choose another name"
    assert open_bundle(kubernetes)
