"""Describe files and folders that are not weights files, and what to do with them.

Downloads often leave something else behind: a web page, a Git LFS pointer, an archive.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from zipfile import ZipFile

from ..runtime.storage.files import is_lfs_pointer
from ..runtime.storage.manifest import MANIFEST
from ..runtime.wording import listed

HEAD = 512  # bytes of a file that are examined; the signature of a tar archive is at 257
BLANK = b"\xef\xbb\xbf \t\r\n"  # what may precede text: a byte order mark, spaces

_OTHER_FRAMEWORK = (
    "Give a torch state dict or safetensors: in torch, torch.save(network.state_dict(), 'weights.pt')"
)
_STATE_DICT = "torch.save(network.state_dict(), 'weights.pt')"

# (offset, bytes at this offset, what the file is, what to do)
_SIGNATURES = (
    (0, b"\x1f\x8b", "a gzip archive", "Unpack it with: {unpack_gzip}"),
    (257, b"ustar", "a tar archive", "Unpack it with: tar -xf {file}, and give the weights file in it"),
    (0, b"BZh", "a bzip2 archive", "Unpack it with: bunzip2 -k {file}"),
    (0, b"\xfd7zXZ\0", "an xz archive", "Unpack it with: unxz -k {file}"),
    (0, b"\x28\xb5\x2f\xfd", "a zstd archive", "Unpack it with: unzstd {file}"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", "Unpack it with: 7z x {file}"),
    (0, b"Rar!", "a RAR archive", "Unpack it with: unrar x {file}"),
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file, as written by Keras", _OTHER_FRAMEWORK),
    (0, b"GGUF", "a GGUF file", _OTHER_FRAMEWORK),
    (4, b"TFL3", "a TensorFlow Lite model", _OTHER_FRAMEWORK),
    (0, b"ftrt", "a TensorRT engine", "Give the checkpoint that it was made from"),
    (0, b"\x93NUMPY", "a numpy array", _OTHER_FRAMEWORK),
    (0, b"\x89PNG", "a PNG image", "Give a torch state dict or safetensors"),
    (0, b"\xff\xd8\xff", "a JPEG image", "Give a torch state dict or safetensors"),
    (0, b"model_checkpoint_path:", "the list of a TensorFlow checkpoint", _OTHER_FRAMEWORK),
)
# The last bytes of a TensorFlow table: .index files and old checkpoints.
_TENSORFLOW_INDEX = b"\x57\xfb\x80\x8b\x24\x75\x47\xdb"
_PAGES = (b"<!doctype html", b"<html", b"<head", b"<body")


def describe_file(path: Path, head: bytes) -> str:
    """Return what a file is that is not a weights file, and what to do. head: its first HEAD bytes."""
    if not head:
        return "an empty file. Download or copy it again"
    if text := _describe_signature(path, head):
        return text
    if text := _describe_text(head):
        return text
    if not head.strip(b"\0"):
        return "a file that begins with zeros, like an interrupted download. Download it again"
    if _ends_with(path, _TENSORFLOW_INDEX) or re.search(r"\.data-\d+-of-\d+$", path.name):
        return f"a part of a TensorFlow checkpoint. {_OTHER_FRAMEWORK}"
    if is_bundle(path.parent):
        command = f"bcm-edge inspect {shlex.quote(str(path.parent))}"
        return f"a file of a bundle, not a checkpoint. Commands take the whole folder: {command}"
    if path.suffix == ".onnx":
        return (
            "an ONNX graph. Give the checkpoint that it was made from: "
            "bcm-edge export writes ONNX graphs, and does not read them"
        )
    return "not a checkpoint (neither safetensors nor a torch file)"


def is_text(head: bytes) -> bool:
    """Return whether the first bytes of a file are text.

    Safetensors begin with a length as an 8-byte integer. Its highest bytes are zero, so it is not text.
    """
    return head.lstrip(BLANK)[:8].isascii() and b"\0" not in head[:8]


def describe_pickle() -> str:
    """Return what to do with a pickle that torch.save did not write."""
    return (
        "a Python pickle that torch.save did not write. Pickles can run code, so it is not read. "
        f"Save the state dict with the program that wrote it: {_STATE_DICT}"
    )


def describe_archive(archive: ZipFile) -> str | None:
    """Return what a zip archive is if torch.save did not write it, and what to do; None if torch.save did."""
    names = [
        name for name in archive.namelist() if not name.endswith("/") and not name.startswith("__MACOSX/")
    ]
    # torch.save writes NAME/data.pkl; TorchScript also has NAME/constants.pkl.
    tops = {name.partition("/")[0] for name in names if name.count("/") == 1 and name.endswith("/data.pkl")}
    if any(f"{top}/constants.pkl" in names for top in tops):
        return f"a TorchScript archive, which contains code. Save the state dict alone: {_STATE_DICT}"
    if tops:
        return None
    if names and all(name.endswith(".npy") for name in names):
        return f"an npz archive of numpy arrays ({listed(names, 3)}). {_OTHER_FRAMEWORK}"
    if not names:
        return "an empty zip archive. Download it again"
    return (
        f"a zip archive that torch.save did not write; it contains {listed(names)}. "
        "Unpack it, and give the weights file in it"
    )


def describe_folder(folder: Path) -> str | None:
    """Return what a folder is that cannot contain weights files, and what to do; None if it can."""
    if is_bundle(folder):
        command = f"bcm-edge inspect {shlex.quote(str(folder))}"
        return f"a bundle already, not a checkpoint. Commands take it as it is: {command}"
    for record in (folder / "data.pkl", *sorted(folder.glob("*/data.pkl"))):
        if is_unpacked(record):
            return describe_unpacked(record.parent)
    if (folder / "saved_model.pb").exists() or any(folder.glob("*.ckpt*.index")):
        return f"a TensorFlow model. {_OTHER_FRAMEWORK}"
    return None


def is_bundle(folder: Path) -> bool:
    """Return whether a folder is a bundle."""
    return (folder / MANIFEST).is_file() and any(folder.glob("forward*.onnx"))


def is_unpacked(record: Path) -> bool:
    """Return whether a file is the data.pkl of an unpacked torch file."""
    return record.name == "data.pkl" and record.is_file() and (record.parent / "data").is_dir()


def describe_unpacked(folder: Path) -> str:
    """Return what to do with the folder that results from unpacking a torch file."""
    folder = folder.resolve()
    parent, name = shlex.quote(str(folder.parent)), shlex.quote(folder.name)
    return (
        "an unpacked torch file: a .pt file is a zip archive, and some browsers unpack it after download. "
        f"Pack it again, and give the file: cd {parent} && zip -0 -r {name}.pt {name}"
    )


def _describe_signature(path: Path, head: bytes) -> str | None:
    for offset, signature, kind, advice in _SIGNATURES:
        if head.startswith(signature, offset):
            file = shlex.quote(str(path))
            is_tar = path.name.endswith((".tar.gz", ".tgz"))
            unpack_gzip = f"tar -xzf {file}" if is_tar else f"gunzip -k {file}"
            return f"{kind}. {advice.format(file=file, unpack_gzip=unpack_gzip)}"
    return None


def _describe_text(head: bytes) -> str | None:
    text = head.lstrip(BLANK).lower()
    if is_lfs_pointer(text):
        size = re.search(rb"\nsize (\d+)", text)
        megabytes = f" ({int(size[1]) / 1e6:.1f} MB)" if size else ""
        return (
            f"a Git LFS pointer, not the weights{megabytes}. "
            "Get them, in the folder of the repository, with: git lfs pull"
        )
    if text.startswith(_PAGES):
        return (
            "an HTML page, not weights: the download returned a web page, often a login page. "
            "Download the file again"
        )
    if text.startswith(b"<?xml"):
        return (
            "an XML document, not weights: servers return one when they refuse a download. "
            "Download the file again"
        )
    if text.startswith((b"{", b"[")):
        return (
            "a JSON file without weights. "
            "Give the weights file, and pass the configuration of a network with --config FILE.json"
        )
    return None


def _ends_with(path: Path, end: bytes) -> bool:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - len(end)))
        return file.read() == end
