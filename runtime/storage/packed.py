"""Packed bundles: a bundle in one file, model.bcm, which is a zip archive without compression.

    manifest.json    the first member
    forward.onnx …   then every file that the manifest lists, in the order of the manifest

The data of each member begins at a multiple of 4096 bytes, so that it can be mapped into memory. The padding
is an extra field of the member's header, as Android's zipalign writes it. Times and permissions are fixed,
so the same bundle gives the same bytes. Files that the manifest does not list are not packed.

A packed bundle is checked before anything is written: its members are not compressed, encrypted or links,
lie inside the file, and have the names and sizes of the manifest. The sha256 of each file is checked while it
is copied out.
"""

from __future__ import annotations

import hashlib
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ...errors import BundleError
from .bundle_files import MANIFEST_LIMIT, inside
from .files import is_html, is_lfs_pointer
from .manifest import MANIFEST, FileFacts, Manifest, parse_manifest

SUFFIX = ".bcm"
ALIGNMENT = 4096  # bytes; the size of a memory page on x86-64 and on a Jetson

_PADDING_FIELD = 0xD935  # the ID of the extra field in which Android's tools write alignment and padding
_LARGE = 1 << 30  # bytes; members of this size have sizes of 64 bits in their headers
_LOCAL_HEADER = struct.Struct("<4s5H3I2H")
_LOCAL_MAGIC = b"PK\x03\x04"
_UNKNOWN = 0xFFFFFFFF  # in place of a size of 64 bits
_ENCRYPTED, _UTF8 = 0x1, 0x800  # flags of a member
_CHUNK = 1 << 20  # bytes that are copied at a time
_COPY_AGAIN = "copy or download the file again"


@dataclass(frozen=True)
class Member:
    """Where the data of a member lies in a packed bundle, in bytes, and its CRC-32."""

    offset: int
    size: int
    crc: int


def is_packed(path: Path) -> bool:
    """Return whether a path has the name of a packed bundle, and is not a folder."""
    return path.suffix.lower() == SUFFIX and not path.is_dir()


def write_packed(folder: Path, names: Iterable[str], target: Path) -> None:
    """Write the manifest and the files `names` of a bundle to a new file `target`. Raises OSError."""
    with target.open("wb") as file, zipfile.ZipFile(file, "w") as archive:
        for name in (MANIFEST, *names):
            source = folder / name
            size = source.stat().st_size
            info = _header(name, size, file.tell())
            with source.open("rb") as data, archive.open(info, "w", force_zip64=size >= _LARGE) as member:
                while chunk := data.read(_CHUNK):
                    member.write(chunk)
            info.extra = b""  # the table of contents needs no padding


def read_packed(path: Path) -> tuple[bytes, Manifest, dict[str, Member]]:
    """Return the text of a packed bundle's manifest, the manifest, and its files: name → member.

    The contents of the other files are not read. Raises BundleError.
    """
    try:
        with path.open("rb") as file:
            members = _members(path, file)
            text = _manifest_text(path, file, members)
    except OSError as error:
        raise BundleError(f"{path}: cannot be read ({error.strerror or error})") from error
    manifest = parse_manifest(text, path, f"{path}: {MANIFEST}")
    files = {}
    for name, facts in manifest.files.items():
        inside(path, name)
        if name not in members:
            raise BundleError(f"{path}: {name} is missing; {_COPY_AGAIN}, or pack the bundle again")
        files[name] = members[name]
        if files[name].size != facts.size:
            raise BundleError(
                f"{path}: {name} has {files[name].size} bytes, but {facts.size} according to the manifest; "
                f"{_COPY_AGAIN}, or pack the bundle again"
            )
    if sum(member.size for member in files.values()) > path.stat().st_size:
        raise BundleError(f"{path}: not a packed bundle (its members overlap); {_COPY_AGAIN}")
    return text, manifest, files


def extract(path: Path, facts: Mapping[str, FileFacts], members: Mapping[str, Member], folder: Path) -> None:
    """Copy members of a packed bundle to files in an existing folder.

    facts, members: of the same names, from `read_packed`. Raises BundleError if the sha256 of a file differs
    from that of the manifest, OSError if a file cannot be written.
    """
    with path.open("rb") as file:
        for name, member in members.items():
            target = inside(folder, name)
            target.parent.mkdir(parents=True, exist_ok=True)
            file.seek(member.offset)
            if _copy(file, member.size, target) != facts[name].sha256:
                raise BundleError(
                    f"{path}: {name} is not the file that was packed (its sha256 differs from the manifest); "
                    f"{_COPY_AGAIN}"
                )


def _header(name: str, size: int, position: int) -> zipfile.ZipInfo:
    """Return the header of a member at a position of the file. Its padding aligns the data behind it."""
    info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
    info.create_system = 3  # Unix, whatever the system
    info.external_attr = (stat.S_IFREG | 0o644) << 16
    info.file_size = size
    info.compress_size = info.CRC = 0  # their place is counted below; zipfile fills them in
    fixed = struct.calcsize("<HHH")
    padding = -(position + len(info.FileHeader(size >= _LARGE)) + fixed) % ALIGNMENT
    info.extra = struct.pack("<HHH", _PADDING_FIELD, 2 + padding, ALIGNMENT) + bytes(padding)
    return info


def _members(path: Path, file: IO[bytes]) -> dict[str, Member]:
    """Return name → member. Raises BundleError unless the file is an archive as `write_packed` writes it."""
    head = file.read(_LOCAL_HEADER.size)
    if not head.startswith(_LOCAL_MAGIC):
        raise BundleError(f"{path}: not a packed bundle ({_kind(head)})")
    try:
        with zipfile.ZipFile(file) as archive:
            infos = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, EOFError, struct.error) as error:
        raise BundleError(
            f"{path}: the file is truncated or damaged: its table of contents, at the end, cannot be read; "
            f"{_COPY_AGAIN}"
        ) from error
    members: dict[str, Member] = {}
    end = os.fstat(file.fileno()).st_size
    for info in infos:
        if info.filename in members:
            raise BundleError(f"{path}: contains {info.filename} twice; pack the bundle again")
        members[info.filename] = _member(path, file, info, end)
    return members


def _member(path: Path, file: IO[bytes], info: zipfile.ZipInfo, end: int) -> Member:
    """Return a member. Raises BundleError if its two headers are invalid or differ."""
    name = info.filename
    if info.flag_bits & _ENCRYPTED:
        raise BundleError(f"{path}: {name} is encrypted, and packed bundles are not; use: bcm-edge pack")
    if info.compress_type != zipfile.ZIP_STORED:
        raise BundleError(
            f"{path}: was packed again with compression; unpack it with another program, and pack the folder "
            "with: bcm-edge pack"
        )
    if stat.S_ISLNK(info.external_attr >> 16):
        raise BundleError(f"{path}: {name} is a link; pack the bundle with: bcm-edge pack")
    damaged = BundleError(f"{path}: the header of {name} is damaged; {_COPY_AGAIN}")
    if info.header_offset < 0 or info.file_size != info.compress_size:
        raise damaged
    file.seek(info.header_offset)
    header = file.read(_LOCAL_HEADER.size)
    if len(header) < _LOCAL_HEADER.size:
        raise damaged
    magic, _, flags, method, _, _, crc, size, full_size, name_length, extra_length = _LOCAL_HEADER.unpack(
        header
    )
    expected = name.encode() if flags & _UTF8 else name.encode("cp437")
    same = (
        magic == _LOCAL_MAGIC
        and (flags, method, crc) == (info.flag_bits, info.compress_type, info.CRC)
        and {size, full_size} <= {info.file_size, _UNKNOWN}
        and file.read(name_length) == expected
    )
    offset = info.header_offset + _LOCAL_HEADER.size + name_length + extra_length
    if not same or offset + info.file_size > end:
        raise damaged
    return Member(offset, info.file_size, info.CRC)


def _manifest_text(path: Path, file: IO[bytes], members: dict[str, Member]) -> bytes:
    """Return the content of manifest.json. Raises BundleError."""
    member = members.get(MANIFEST)
    if member is None:
        raise BundleError(f"{path}: not a packed bundle (a zip archive without {MANIFEST})")
    if member.size > MANIFEST_LIMIT:
        raise BundleError(f"{path}: {MANIFEST} is too large for a manifest")
    file.seek(member.offset)
    text = file.read(member.size)
    if zlib.crc32(text) != member.crc:
        raise BundleError(f"{path}: {MANIFEST} is damaged (its checksum differs); {_COPY_AGAIN}")
    return text


def _copy(file: IO[bytes], size: int, target: Path) -> str:
    """Copy the next `size` bytes of a file to `target`, and return their sha256."""
    digest = hashlib.sha256()
    with target.open("wb") as output:
        while size and (chunk := file.read(min(size, _CHUNK))):
            digest.update(chunk)
            output.write(chunk)
            size -= len(chunk)
    return digest.hexdigest()


def _kind(head: bytes) -> str:
    """Return what a file is that does not begin like a zip archive."""
    if not head:
        return "the file is empty; copy or download it again"
    if is_lfs_pointer(head):
        return "a Git LFS pointer; get the file with: git lfs pull"
    if is_html(head):
        return "an HTML page; download the file again"
    return "it does not begin like a zip archive; make it with: bcm-edge pack"
