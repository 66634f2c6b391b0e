"""Bundles that were changed or truncated, or that refer to files outside, are refused with their name."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fixture_types import Cli
from fuzzing import fuzzed
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from refusals import edit_manifest, refusal

from bcm_edge.errors import BundleError
from bcm_edge.runtime.storage.bundle import open_bundle

BUNDLE_FILES = ("forward.onnx", "golden.npz", "inverse.onnx", "weights.bin")


def rename_in_manifest(name: str) -> Callable[[dict[str, Any]], None]:
    """Return an edit of the manifest that lists golden.npz under another name."""

    def change(manifest: dict[str, Any]) -> None:
        manifest["files"][name] = manifest["files"].pop("golden.npz")

    return change


@pytest.mark.parametrize("name", BUNDLE_FILES)
def test_bundle_with_a_missing_file(bundle_copy: Path, cli: Cli, name: str) -> None:
    (bundle_copy / name).unlink()
    assert (
        refusal(cli("inspect", bundle_copy))
        == f"{bundle_copy}: {name} is missing; export the bundle again or copy it whole"
    )


@pytest.mark.parametrize("command", ["generate", "invert", "reconstruct", "verify", "inspect"])
def test_bundle_with_a_renamed_file_is_refused_by_every_command(
    bundle_copy: Path, cli: Cli, tmp_path: Path, command: str
) -> None:
    (bundle_copy / "inverse.onnx").rename(bundle_copy / "Inverse.onnx")
    Image.new("L", (8, 8)).save(tmp_path / "in.png")
    inputs = () if command == "generate" else (tmp_path / "in.png",)
    writes = command in ("generate", "invert", "reconstruct")
    more = (*inputs, "--label", 3, "-o", tmp_path / "out.npz") if writes else ()
    assert refusal(cli(command, bundle_copy, *more)).startswith(f"{bundle_copy}: inverse.onnx is missing")
    assert not (tmp_path / "out.npz").exists()


@pytest.mark.parametrize("name", BUNDLE_FILES)
def test_bundle_with_a_file_that_grew(bundle_copy: Path, cli: Cli, name: str) -> None:
    with (bundle_copy / name).open("ab") as file:
        file.write(b"x")
    message = refusal(cli("inspect", bundle_copy))
    assert message.startswith(f"{bundle_copy}: {name} has ")
    assert message.endswith("it was changed or truncated; export the bundle again or copy it whole")


@fuzzed
@given(
    name=st.sampled_from(BUNDLE_FILES), position=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255)
)
def test_flipped_byte_in_any_file_names_the_file(
    digits_bundle: Path, scratch: Path, name: str, position: float, flip: int
) -> None:
    bundle = shutil.copytree(digits_bundle, scratch / "flipped.bundle", dirs_exist_ok=True)
    data = bytearray((bundle / name).read_bytes())
    data[int(position * len(data))] ^= flip
    (bundle / name).write_bytes(data)
    with pytest.raises(BundleError, match=rf"flipped\.bundle: {name} is not the file that was exported"):
        open_bundle(bundle)


@fuzzed
@given(name=st.sampled_from(BUNDLE_FILES), part=st.floats(0, 1, exclude_max=True))
def test_truncated_file_of_a_bundle_names_the_file(
    digits_bundle: Path, scratch: Path, name: str, part: float
) -> None:
    bundle = shutil.copytree(digits_bundle, scratch / "cut.bundle", dirs_exist_ok=True)
    size = (bundle / name).stat().st_size
    os.truncate(bundle / name, int(part * size))
    with pytest.raises(
        BundleError, match=rf"cut\.bundle: {name} has {int(part * size)} bytes, but {size} according"
    ):
        open_bundle(bundle)


@fuzzed
@given(position=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
def test_flipped_byte_in_the_manifest_is_refused_or_harmless(
    digits_bundle: Path, scratch: Path, position: float, flip: int
) -> None:
    bundle = scratch / "manifest.bundle"
    if not bundle.exists():
        shutil.copytree(digits_bundle, bundle)
    data = bytearray((digits_bundle / "manifest.json").read_bytes())
    data[int(position * len(data))] ^= flip
    (bundle / "manifest.json").write_bytes(data)
    try:
        opened = open_bundle(bundle)
    except BundleError as error:
        assert str(error).startswith(str(bundle))
    else:  # a character of a name, a schedule or the provenance
        assert set(opened.manifest.files) == set(BUNDLE_FILES)


@pytest.mark.parametrize("name", BUNDLE_FILES)
def test_bundle_file_that_is_a_link_to_a_file_outside(
    bundle_copy: Path, cli: Cli, tmp_path: Path, name: str
) -> None:
    (bundle_copy / name).rename(tmp_path / "outside")
    (bundle_copy / name).symlink_to(tmp_path / "outside")
    message = refusal(cli("inspect", bundle_copy))
    assert message.startswith(
        f"{bundle_copy}: {name} is a link to a file outside the bundle, and such links are not followed"
    )
    assert message.endswith(f"with: cp -rL {bundle_copy} copy-copy.bundle")


def test_bundle_manifest_that_is_a_link(bundle_copy: Path, cli: Cli, tmp_path: Path) -> None:
    (bundle_copy / "manifest.json").rename(tmp_path / "outside.json")
    (bundle_copy / "manifest.json").symlink_to(tmp_path / "outside.json")
    assert refusal(cli("inspect", bundle_copy)).startswith(
        f"{bundle_copy}: manifest.json is a link to a file outside the bundle"
    )


def test_bundle_file_in_a_folder_that_is_a_link_to_the_outside(
    bundle_copy: Path, cli: Cli, tmp_path: Path
) -> None:
    (tmp_path / "outside").mkdir()
    (bundle_copy / "golden.npz").rename(tmp_path / "outside" / "golden.npz")
    (bundle_copy / "sub").symlink_to(tmp_path / "outside")
    edit_manifest(bundle_copy, rename_in_manifest("sub/golden.npz"))
    assert refusal(cli("inspect", bundle_copy)).startswith(
        f"{bundle_copy}: sub/golden.npz is a link to a file outside the bundle"
    )


@pytest.mark.parametrize(
    "name",
    ["../golden.npz", "sub/../../golden.npz", "/etc/hostname", "..\\golden.npz", "C:golden.npz", ".", ""],
)
def test_manifest_path_outside_the_bundle(bundle_copy: Path, cli: Cli, name: str) -> None:
    shutil.copy(bundle_copy / "golden.npz", bundle_copy.parent / "golden.npz")
    edit_manifest(bundle_copy, rename_in_manifest(name))
    assert (
        refusal(cli("inspect", bundle_copy))
        == f"{bundle_copy}: the manifest lists {name!r}, which is not a path inside the bundle"
    )


def test_bundle_of_a_newer_schema(bundle_copy: Path, cli: Cli) -> None:
    edit_manifest(bundle_copy, lambda manifest: manifest.update(schema=2, model="of another shape"))
    expected = "made by a newer bcm-edge (bundle schema 2, this version reads up to 1); upgrade bcm-edge"
    assert refusal(cli("inspect", bundle_copy)) == f"{bundle_copy}: {expected}"


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff\xfe", b"[" * 100_000],
    ids=lambda content: repr(content[:16]),
)
def test_bundle_manifest_that_is_not_json(bundle_copy: Path, cli: Cli, content: bytes) -> None:
    (bundle_copy / "manifest.json").write_bytes(content)
    message = refusal(cli("inspect", bundle_copy))
    assert message.startswith(f"{bundle_copy}/manifest.json: not valid JSON (")
    assert message.endswith("); copy the bundle again or export it again")


@pytest.mark.parametrize(
    "content", [b"[]", b"null", b"{}", b'{"schema": 0}', b'{"schema": "1"}'], ids=bytes.decode
)
def test_bundle_manifest_that_is_not_valid(bundle_copy: Path, cli: Cli, content: bytes) -> None:
    (bundle_copy / "manifest.json").write_bytes(content)
    assert refusal(cli("inspect", bundle_copy)).startswith(
        f"{bundle_copy}/manifest.json: not a valid manifest ("
    )


@pytest.mark.parametrize("field", ["model", "graphs", "schedules", "files", "provenance"])
def test_bundle_manifest_without_a_field(bundle_copy: Path, cli: Cli, field: str) -> None:
    edit_manifest(bundle_copy, lambda manifest: manifest.pop(field))
    assert (
        refusal(cli("inspect", bundle_copy))
        == f"{bundle_copy}/manifest.json: not a valid manifest (KeyError: '{field}')"
    )


@pytest.mark.parametrize("shape", [[1, 8], [1, 8, None], [1, 8, float("inf")], "8x8", {}])
def test_bundle_manifest_with_an_invalid_shape(bundle_copy: Path, cli: Cli, shape: Any) -> None:
    edit_manifest(bundle_copy, lambda manifest: manifest["model"].update(sample_shape=shape))
    assert refusal(cli("inspect", bundle_copy)).startswith(
        f"{bundle_copy}/manifest.json: not a valid manifest ("
    )


def test_bundle_with_a_schedule_that_cannot_be_played(bundle_copy: Path, cli: Cli) -> None:
    edit_manifest(bundle_copy, lambda manifest: manifest["schedules"].update(mine="80>90"))
    message = refusal(cli("inspect", bundle_copy), lines=3)
    assert (
        "not a valid manifest (ScheduleError: schedule: level 90 is outside [0.002, 80] (column 4)" in message
    )


@pytest.mark.parametrize("url", ["https://example.org/m.bundle", "s3://bucket/m.bcm", "hf://name/model"])
def test_url_of_a_bundle(cli: Cli, url: str) -> None:
    advice = "a URL, not a file. Nothing is downloaded; download the file, and give its path"
    assert refusal(cli("inspect", url)) == f"{url.replace('//', '/')}: {advice}"


def test_path_that_is_not_a_bundle(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "empty").mkdir()
    file_advice = "a bundle is a folder, make one with: bcm-edge export CHECKPOINT -o"
    assert (
        refusal(cli("inspect", tmp_path / "file"))
        == f"{tmp_path}/file: not a bundle (a file); {file_advice} {tmp_path}/file.bundle"
    )
    advice = "give a bundle, or a model in the package: emoji, digits, mnist; bcm-edge export makes a bundle"
    assert (
        refusal(cli("inspect", tmp_path / "no")) == f"{tmp_path}/no: not a bundle (no such folder); {advice}"
    )
    assert refusal(cli("inspect", tmp_path / "empty")) == (
        f"{tmp_path}/empty: not a bundle (a folder without manifest.json); bcm-edge export makes a bundle"
    )


def test_network_that_returns_nan_writes_no_image(bundle_copy: Path, cli: Cli, tmp_path: Path) -> None:
    data = np.full((bundle_copy / "weights.bin").stat().st_size // 4, np.nan, "<f4").tobytes()
    (bundle_copy / "weights.bin").write_bytes(data)
    facts = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    edit_manifest(bundle_copy, lambda manifest: manifest["files"].update({"weights.bin": facts}))
    result = cli(
        "generate", bundle_copy, "--label", 3, "--schedule", "80>2.4>0.002", "-o", tmp_path / "a.png"
    )
    assert result.exit_code == 1
    assert result.stderr == (
        "error: move 1 of 2 (80>2.4) on backend onnxruntime gave NaN or infinity (first in sample 0); "
        "no image was made\n"
    )
    assert not (tmp_path / "a.png").exists()
