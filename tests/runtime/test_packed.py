"""A packed bundle: one file in place of the folder, for every command and for load."""

from __future__ import annotations

import json
import shutil
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from fixture_types import Cli, Process
from refusals import refusal

import bcm_edge
from bcm_edge.errors import OutputError
from bcm_edge.runtime.storage import packed as packed_module
from bcm_edge.runtime.storage.bundle import open_bundle
from bcm_edge.runtime.storage.unpacking import unpack, unpacked_copy

FILES = ["manifest.json", "forward.onnx", "golden.npz", "inverse.onnx", "weights.bin"]


@pytest.fixture(scope="module")
def packed(digits_bundle: Path, cli: Cli, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped model, packed. Tests only read it."""
    file = tmp_path_factory.mktemp("packed") / "digits.bcm"
    assert cli("pack", digits_bundle, "-o", file).exit_code == 0
    return file


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def data_offset(file: Path, info: zipfile.ZipInfo) -> int:
    """Where the data of a member begins, from the lengths in its local header."""
    header = file.read_bytes()[info.header_offset : info.header_offset + 30]
    return info.header_offset + 30 + sum(struct.unpack("<2H", header[26:]))


def test_unpacking_returns_the_files_that_were_packed(
    packed: Path, digits_bundle: Path, cli: Cli, tmp_path: Path
) -> None:
    result = cli("unpack", packed, "-o", tmp_path / "out.bundle", "--json")
    assert result.exit_code == 0
    assert set(json.loads(result.stdout)["files"]) >= set(FILES)
    assert contents(tmp_path / "out.bundle") == contents(digits_bundle)


def test_same_bundle_gives_the_same_bytes(
    packed: Path, digits_bundle: Path, cli: Cli, tmp_path: Path
) -> None:
    copy = shutil.copytree(digits_bundle, tmp_path / "copy.bundle", copy_function=shutil.copyfile)
    for source in (copy, packed):  # a folder with other times, and the packed bundle itself
        assert cli("pack", source, "-o", tmp_path / "again.bcm", "--force").exit_code == 0
        assert (tmp_path / "again.bcm").read_bytes() == packed.read_bytes()
    with zipfile.ZipFile(packed) as archive:
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert {info.external_attr >> 16 for info in archive.infolist()} == {0o100644}


def test_other_programs_read_it(packed: Path, digits_bundle: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(packed) as archive:
        assert archive.testzip() is None
        archive.extractall(tmp_path / "out.bundle")
    assert contents(tmp_path / "out.bundle") == contents(digits_bundle)


def test_data_begins_at_pages_and_can_be_mapped(packed: Path, digits_bundle: Path) -> None:
    with zipfile.ZipFile(packed) as archive:
        infos = archive.infolist()
    assert infos[0].filename == "manifest.json"
    assert {info.compress_type for info in infos} == {zipfile.ZIP_STORED}
    offsets = {info.filename: data_offset(packed, info) for info in infos}
    assert [offset % 4096 for offset in offsets.values()] == [0] * len(infos)
    size = (digits_bundle / "weights.bin").stat().st_size
    mapped = np.memmap(packed, "<f4", "r", offsets["weights.bin"], (size // 4,))
    assert np.array_equal(mapped, np.fromfile(digits_bundle / "weights.bin", "<f4"))


def test_members_with_sizes_of_64_bits(
    digits_bundle: Path, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Members of 1 GiB and more have such headers. Here members of 100 kB have them."""
    monkeypatch.setattr(packed_module, "_LARGE", 100_000)
    file = tmp_path / "large.bcm"
    assert cli("pack", digits_bundle, "-o", file).exit_code == 0
    with zipfile.ZipFile(file) as archive:
        infos = {info.filename: info for info in archive.infolist()}
    start = infos["weights.bin"].header_offset
    extra_fields = file.read_bytes()[
        start + 30 + len("weights.bin") : data_offset(file, infos["weights.bin"])
    ]
    assert struct.pack("<2H", 1, 16) in extra_fields  # two sizes of 64 bits
    assert {data_offset(file, info) % 4096 for info in infos.values()} == {0}
    unpack(file, tmp_path / "out.bundle", force=False)
    assert contents(tmp_path / "out.bundle") == contents(digits_bundle)


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino", "null"])
def test_packed_bundle_plays_as_its_folder(packed: Path, digits_bundle: Path, backend: str) -> None:
    if backend != "null":
        pytest.importorskip(backend, reason=f"{backend} is not installed")
    images = []
    for source in (packed, digits_bundle):
        with bcm_edge.load(source, backend, precision="fp32") as bcm:
            images.append(bcm.generate(schedule="80>2.4>0.002", n=2, seed=5, labels=[3, 8]))
    assert images[0].shape == (2, 1, 8, 8)
    np.testing.assert_allclose(images[0], images[1], atol=1e-5)


@pytest.mark.parametrize("command", ["inspect", "verify", "doctor", "generate", "invert", "triton"])
def test_commands_take_the_file(packed: Path, cli: Cli, tmp_path: Path, command: str) -> None:
    if command == "triton":
        pytest.importorskip("onnx", reason="onnx is not installed, which triton needs")
    pictures = tmp_path / "pictures.png"
    more: dict[str, tuple[object, ...]] = {
        "verify": ("--precision", "fp32"),
        "generate": ("--label", 3, "-o", tmp_path / "out.png"),
        "invert": (pictures, "--label", 3, "-o", tmp_path / "out.npz"),
        "triton": ("-o", tmp_path / "models", "--platform", "onnxruntime", "--precision", "fp32"),
    }
    if command == "invert":
        assert cli("generate", packed, "--label", 3, "-o", pictures).exit_code == 0
    result = cli(command, packed, *more.get(command, ()))
    assert result.exit_code == 0, result.output


def test_damaged_copy_in_the_cache_is_replaced(packed: Path, cli: Cli) -> None:
    copy = unpacked_copy(packed) / "weights.bin"
    whole = copy.read_bytes()
    copy.write_bytes(whole[:1000] + bytes(1000) + whole[2000:])
    assert open_bundle(packed).path == copy.parent
    assert copy.read_bytes() == whole
    (copy.parent / "manifest.json").write_text("{")
    assert cli("inspect", packed).exit_code == 0


def test_link_to_a_file_of_another_name_opens(packed: Path, cli: Cli, tmp_path: Path) -> None:
    """The cache of the Hugging Face Hub consists of such links."""
    shutil.copy(packed, tmp_path / "3fa9c1")
    (tmp_path / "digits.bcm").symlink_to("3fa9c1")
    assert cli("inspect", tmp_path / "digits.bcm").exit_code == 0


def test_changed_file_of_the_same_name_is_another_bundle(
    packed: Path, bundle_copy: Path, cli: Cli, tmp_path: Path
) -> None:
    file = Path(shutil.copy(packed, tmp_path / "model.bcm"))
    assert open_bundle(file).manifest.model.name == "digits"
    manifest = json.loads((bundle_copy / "manifest.json").read_text())
    manifest["model"]["name"] = "another"
    (bundle_copy / "manifest.json").write_text(json.dumps(manifest))
    assert cli("pack", bundle_copy, "-o", file, "--force").exit_code == 0
    assert open_bundle(file).manifest.model.name == "another"


def test_without_a_cache_the_copy_is_temporary(packed: Path, process: Process, tmp_path: Path) -> None:
    (tmp_path / "temporary").mkdir()
    (tmp_path / "file").write_text("")
    completed = process(
        *("generate", packed, "--label", 3, "-o", tmp_path / "out.png"),
        BCM_EDGE_CACHE_DIR=str(tmp_path / "file" / "cache"),
        TMPDIR=str(tmp_path / "temporary"),
    )
    assert completed.returncode == 0, completed.stderr
    assert (tmp_path / "out.png").exists()
    assert list((tmp_path / "temporary").iterdir()) == []


def test_files_that_the_manifest_does_not_list_are_left_out(
    bundle_copy: Path, cli: Cli, tmp_path: Path
) -> None:
    (bundle_copy / "README.md").write_text("# digits\n")
    (bundle_copy / "engines" / "fp16").mkdir(parents=True)
    result = cli("pack", bundle_copy, "-o", tmp_path / "out.bcm", "--json")
    assert json.loads(result.stdout)["left_out"] == ["README.md", "engines/"]
    assert "note: not packed, because the manifest does not list them: README.md, engines/" in result.stderr
    unpack(tmp_path / "out.bcm", tmp_path / "out.bundle", force=False)
    assert not {"README.md", "engines"} & {file.name for file in (tmp_path / "out.bundle").iterdir()}


def test_unpacking_a_folder(digits_bundle: Path, cli: Cli, tmp_path: Path):
    message = refusal(cli("unpack", digits_bundle, "-o", tmp_path / "out.bundle"))
    assert message.startswith(f"{digits_bundle} is a folder; give a packed bundle")


@pytest.mark.parametrize(
    "arguments", [("calibrate", "--data", "digits"), ("build",)], ids=lambda arguments: arguments[0]
)
def test_commands_that_change_a_bundle_name_the_command_that_unpacks(
    packed: Path, cli: Cli, arguments: tuple[str, ...]
) -> None:
    command, *options = arguments
    if command == "calibrate":
        pytest.importorskip("torch", reason="torch is not installed, which calibrate needs")
    folder = packed.with_suffix(".bundle")
    assert refusal(cli(command, packed, *options)) == (
        f"{packed}: a packed bundle is not changed; unpack it with: bcm-edge unpack {packed} -o {folder}"
    )


def test_export_does_not_replace_a_packed_bundle(packed: Path, cli: Cli) -> None:
    pytest.importorskip("torch", reason="torch is not installed, which export needs")
    before = packed.read_bytes()
    folder = packed.with_suffix(".bundle")
    assert refusal(cli("export", "-o", packed, "--force")) == (
        f"{packed}: export writes a folder; use -o {folder}, and then bcm-edge pack {folder} -o {packed}"
    )
    assert packed.read_bytes() == before


def test_verify_says_that_verdicts_are_not_stored(packed: Path, cli: Cli) -> None:
    result = cli("verify", packed, "--precision", "fp32")
    assert result.exit_code == 0
    assert f"note: the verdicts are not stored in the bundle: {packed}: a packed bundle" in result.stderr


def test_outputs_are_not_replaced_without_force(
    packed: Path, digits_bundle: Path, cli: Cli, tmp_path: Path
) -> None:
    (tmp_path / "out.bcm").write_bytes(b"mine")
    message = refusal(cli("pack", digits_bundle, "-o", tmp_path / "out.bcm"))
    assert message == f"{tmp_path}/out.bcm exists already; --force replaces it"
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.png").write_bytes(b"mine")
    with pytest.raises(OutputError, match="a folder with other files in it"):
        unpack(packed, tmp_path / "photos", force=True)
    assert (tmp_path / "out.bcm").read_bytes() == (tmp_path / "photos" / "cat.png").read_bytes() == b"mine"


def test_name_without_the_suffix_is_refused(digits_bundle: Path, cli: Cli, tmp_path: Path) -> None:
    message = refusal(cli("pack", digits_bundle, "-o", tmp_path / "digits.zip"))
    assert message.endswith("packed bundles are recognised by their name; give one that ends in .bcm")
