"""Packed bundles that were damaged, packed by other programs, or made to write elsewhere, are refused."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fixture_types import Cli
from fuzzing import fuzzed
from hypothesis import given
from hypothesis import strategies as st
from refusals import edit_manifest, refusal

from bcm_edge.errors import BundleError
from bcm_edge.runtime.storage.bundle import open_bundle

CENTRAL = b"PK\x01\x02"  # begins the entry of a member in the table of contents


@pytest.fixture(scope="module")
def packed(digits_bundle: Path, cli: Cli, scratch: Path) -> Path:
    """The shipped model, packed. Tests only read it."""
    assert cli("pack", digits_bundle, "-o", scratch / "digits.bcm").exit_code == 0
    return scratch / "digits.bcm"


def zipped(bundle: Path, file: Path, method: int = zipfile.ZIP_STORED) -> Path:
    """Zip the files of a folder, as any program would."""
    with zipfile.ZipFile(file, "w", method) as archive:
        for entry in sorted(bundle.iterdir()):
            archive.write(entry, entry.name)
    return file


def edited(packed: Path, target: Path, change: Callable[[bytearray], object]) -> Path:
    data = bytearray(packed.read_bytes())
    change(data)
    target.write_bytes(data)
    return target


@fuzzed
@given(
    position=st.floats(0, 1, exclude_max=True),
    flip=st.integers(1, 255),
    part=st.sampled_from([(0, 12_000), (0, 1 << 40), (-600, 600)]),  # manifest, all, table of contents
)
def test_flipped_byte_is_refused_or_harmless(
    packed: Path, scratch: Path, position: float, flip: int, part: tuple[int, int]
) -> None:
    size = packed.stat().st_size
    start, length = part
    place = start % size + int(position * min(length, size))

    def change(data: bytearray) -> None:
        data[place] ^= flip

    file = edited(packed, scratch / "flipped.bcm", change)
    try:
        opened = open_bundle(file)
    except BundleError as error:
        assert str(error).startswith(str(file))
    else:  # padding, a time, or a permission
        assert opened.manifest == open_bundle(packed).manifest


@fuzzed
@given(part=st.floats(0, 1, exclude_max=True))
def test_truncated_file_is_refused(packed: Path, scratch: Path, part: float) -> None:
    file = Path(shutil.copy(packed, scratch / "cut.bcm"))
    os.truncate(file, int(part * file.stat().st_size))
    with pytest.raises(
        BundleError, match=r"cut\.bcm: (the file is truncated|not a packed bundle \(the file is)"
    ):
        open_bundle(file)


@pytest.mark.parametrize("name", ["forward.onnx", "golden.npz", "inverse.onnx", "weights.bin"])
def test_changed_byte_names_the_member(packed: Path, cli: Cli, tmp_path: Path, name: str) -> None:
    with zipfile.ZipFile(packed) as archive:
        content = archive.read(name)

    def change(data: bytearray) -> None:
        data[data.index(content) + len(content) // 2] ^= 1

    file = edited(packed, tmp_path / "changed.bcm", change)
    assert refusal(cli("inspect", file)) == (
        f"{file}: {name} is not the file that was packed (its sha256 differs from the manifest); "
        "copy or download the file again"
    )
    assert refusal(cli("unpack", file, "-o", tmp_path / "out.bundle")).startswith(f"{file}: {name} is not")
    assert not (tmp_path / "out.bundle").exists()


def test_archive_without_compression_by_another_program_is_accepted(
    bundle_copy: Path, cli: Cli, tmp_path: Path
) -> None:
    (bundle_copy / "README.md").write_text("other files are ignored")
    assert cli("inspect", zipped(bundle_copy, tmp_path / "zipped.bcm")).exit_code == 0


def test_archive_with_compression_is_refused(digits_bundle: Path, cli: Cli, tmp_path: Path) -> None:
    file = zipped(digits_bundle, tmp_path / "small.bcm", zipfile.ZIP_DEFLATED)
    assert refusal(cli("generate", file, "--label", 3, "-o", tmp_path / "out.png")) == (
        f"{file}: was packed again with compression; unpack it with another program, and pack the folder "
        "with: bcm-edge pack"
    )


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer; get the file with: git lfs"),
        (b"<!DOCTYPE html><html>", "an HTML page; download the file again"),
        (b"\x00" * 100, "it does not begin like a zip archive; make it with: bcm-edge pack"),
    ],
    ids=["empty", "pointer", "page", "zeros"],
)
def test_file_that_is_no_archive(cli: Cli, tmp_path: Path, content: bytes, reason: str) -> None:
    file = tmp_path / "model.bcm"
    file.write_bytes(content)
    assert refusal(cli("inspect", file)).startswith(f"{file}: not a packed bundle ({reason}")


def test_missing_file(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "no.bcm"
    assert (
        refusal(cli("inspect", file))
        == f"{file}: no such file; make one with: bcm-edge pack BUNDLE -o {file}"
    )


def test_archive_of_other_things(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "data.pkl").write_bytes(b"\x80")
    file = zipped(tmp_path / "folder", tmp_path / "weights.bcm")
    assert refusal(cli("inspect", file)) == (
        f"{file}: not a packed bundle (a zip archive without manifest.json)"
    )


@pytest.mark.parametrize("name", ["../golden.npz", "/etc/hostname", "sub/../../golden.npz", "..\\golden.npz"])
def test_names_that_lead_out_are_refused(bundle_copy: Path, cli: Cli, tmp_path: Path, name: str) -> None:
    content = (bundle_copy / "golden.npz").read_bytes()
    edit_manifest(bundle_copy, lambda m: m["files"].update({name: m["files"].pop("golden.npz")}))
    (bundle_copy / "golden.npz").unlink()
    file = zipped(bundle_copy, tmp_path / "out.bcm")
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr(zipfile.ZipInfo(name), content)
    assert refusal(cli("inspect", file)) == (
        f"{file}: the manifest lists {name!r}, which is not a path inside the bundle"
    )


def test_name_that_occurs_twice(bundle_copy: Path, cli: Cli, tmp_path: Path) -> None:
    file = zipped(bundle_copy, tmp_path / "twice.bcm")
    with zipfile.ZipFile(file, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("weights.bin", b"other weights")
    assert refusal(cli("inspect", file)) == f"{file}: contains weights.bin twice; pack the bundle again"


def test_links_are_refused(bundle_copy: Path, cli: Cli, tmp_path: Path) -> None:
    (bundle_copy / "weights.bin").unlink()
    file = zipped(bundle_copy, tmp_path / "links.bcm")
    link = zipfile.ZipInfo("weights.bin")
    link.create_system = 3
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr(link, "/etc/passwd")
    assert refusal(cli("inspect", file)).startswith(f"{file}: weights.bin is a link")


def test_encrypted_members_are_refused(packed: Path, cli: Cli, tmp_path: Path) -> None:
    def change(data: bytearray) -> None:
        for match in re.finditer(CENTRAL, bytes(data)):
            data[match.start() + 8] |= 1

    file = edited(packed, tmp_path / "secret.bcm", change)
    assert refusal(cli("inspect", file)).startswith(f"{file}: manifest.json is encrypted")


def test_missing_member(bundle_copy: Path, cli: Cli, tmp_path: Path) -> None:
    (bundle_copy / "weights.bin").unlink()
    file = zipped(bundle_copy, tmp_path / "part.bcm")
    assert refusal(cli("inspect", file)).startswith(f"{file}: weights.bin is missing; copy or download")


def test_member_of_another_size(bundle_copy: Path, cli: Cli, tmp_path: Path) -> None:
    size = (bundle_copy / "weights.bin").stat().st_size
    (bundle_copy / "weights.bin").write_bytes(bytes(size + 1))
    file = zipped(bundle_copy, tmp_path / "grown.bcm")
    message = refusal(cli("inspect", file))
    assert message.startswith(
        f"{file}: weights.bin has {size + 1} bytes, but {size} according to the manifest"
    )


def test_headers_that_differ_are_refused(packed: Path, cli: Cli, tmp_path: Path) -> None:
    """Programs that read the table of contents and those that read the headers must see the same files."""

    def change(data: bytearray) -> None:
        start = data.index(b"golden.npz", data.index(b"PK\x03\x04", 4))  # behind the manifest
        data[start : start + 10] = b"silver.npz"

    file = edited(packed, tmp_path / "two.bcm", change)
    assert refusal(cli("inspect", file)).startswith(f"{file}: the header of golden.npz is damaged")


def test_members_that_overlap_are_refused(bundle_copy: Path, cli: Cli, tmp_path: Path) -> None:
    """Each member contains the next one with its header, so a small file could fill the disk."""
    content = bytes(1_000_000)
    members = []  # the innermost first
    for index in range(20):
        name = f"copy{index:02}"
        member = _Nested(name, content)
        members.append(member)
        content = member.header() + content
    facts = {
        member.name: {"size": len(member.content), "sha256": hashlib.sha256(member.content).hexdigest()}
        for member in members
    }
    edit_manifest(bundle_copy, lambda m: m["files"].update(facts))
    file = zipped(bundle_copy, tmp_path / "bomb.bcm")
    _insert(file, members)
    with zipfile.ZipFile(file) as archive:
        assert sum(info.file_size for info in archive.infolist()) > 20_000_000
    assert file.stat().st_size < 11_000_000
    assert refusal(cli("inspect", file)).startswith(f"{file}: not a packed bundle (its members overlap)")


class _Nested:
    """A member whose content contains other members."""

    def __init__(self, name: str, content: bytes) -> None:
        self.name, self.content = name, content
        self.sizes = (zlib.crc32(content), len(content), len(content))

    def header(self) -> bytes:
        fields = struct.pack("<5H3I2H", 20, 0, 0, 0, 33, *self.sizes, len(self.name), 0)
        return b"PK\x03\x04" + fields + self.name.encode()

    def entry(self, offset: int) -> bytes:
        fields = struct.pack(
            "<6H3I5H2I", 20, 20, 0, 0, 0, 33, *self.sizes, len(self.name), 0, 0, 0, 0, 0, offset
        )
        return CENTRAL + fields + self.name.encode()


def _insert(file: Path, members: list[_Nested]) -> None:
    """Add nested members, the innermost first, to an archive."""
    data = file.read_bytes()
    end = data.rindex(b"PK\x05\x06")
    count, size, start = struct.unpack("<10xH2I2x", data[end : end + 22])
    outermost = members[-1].header() + members[-1].content
    offsets = [start + len(outermost) - len(member.header() + member.content) for member in members]
    entries = b"".join(map(_Nested.entry, members, offsets))
    total = count + len(members)
    tail = struct.pack("<4H2IH", 0, 0, total, total, size + len(entries), start + len(outermost), 0)
    file.write_bytes(data[:start] + outermost + data[start:end] + entries + b"PK\x05\x06" + tail)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(schema=99), "made by a newer bcm-edge (bundle schema 99"),
        (lambda m: m.pop("files"), "manifest.json: not a valid manifest (KeyError: 'files')"),
    ],
    ids=["newer", "invalid"],
)
def test_manifest_that_cannot_be_used(
    bundle_copy: Path, cli: Cli, tmp_path: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    edit_manifest(bundle_copy, change)
    file = zipped(bundle_copy, tmp_path / "model.bcm")
    assert refusal(cli("inspect", file)).startswith(f"{file}: {message}")


def test_graph_that_reads_other_files_is_refused_by_the_name_of_the_packed_bundle(
    bundle_copy: Path, cli: Cli, tmp_path: Path
) -> None:
    graph = (bundle_copy / "forward.onnx").read_bytes().replace(b"weights.bin", b"../leak.bin")
    (bundle_copy / "forward.onnx").write_bytes(graph)
    facts = {"size": len(graph), "sha256": hashlib.sha256(graph).hexdigest()}
    edit_manifest(bundle_copy, lambda m: m["files"].update({"forward.onnx": facts}))
    file = zipped(bundle_copy, tmp_path / "leak.bcm")
    message = refusal(cli("inspect", file))
    assert message == f"{file}: forward.onnx loads weights from files that do not belong to this bundle"
