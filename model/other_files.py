"""What a file or folder is, when it is not a weights file, and what to do with it: people bring what a download left behind."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from zipfile import ZipFile

from ..runtime.storage.files import is_lfs_pointer
from ..runtime.storage.manifest import MANIFEST
from ..runtime.wording import listed

HEAD = 512  # bytes of a file that are looked at; a tar archive names itself at 257

BLANK = b"\xef\xbb\xbf \t\r\n"  # what may stand before text: a byte order mark, spaces

_OTHER_FRAMEWORK = (
    "Give a torch state dict or safetensors: in torch, torch.save(network.state_dict(), 'weights.pt')"
)

_BEGINNINGS = (  # (offset, bytes there, what the file is, what to do)
    (0, b"\x1f\x8b", "a gzip archive", "Unpack it with: {unpack_gzip}"),
    (257, b"ustar", "a tar archive", "Unpack it with: tar -xf {file}, and give the weights file in it"),
    (0, b"BZh", "a bzip2 archive", "Unpack it with: bunzip2 -k {file}"),
    (0, b"\xfd7zXZ\0", "an xz archive", "Unpack it with: unxz -k {file}"),
    (0, b"\x28\xb5\x2f\xfd", "a zstd archive", "Unpack it with: unzstd {file}"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", "Unpack it with: 7z x {file}"),
    (0, b"Rar!", "a RAR archive", "Unpack it with: unrar x {file}"),
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file, as Keras writes them", _OTHER_FRAMEWORK),
    (0, b"GGUF", "a GGUF file", _OTHER_FRAMEWORK),
    (4, b"TFL3", "a TensorFlow Lite model", _OTHER_FRAMEWORK),
    (0, b"ftrt", "a TensorRT engine", "Give the checkpoint that it was made of"),
    (0, b"\x93NUMPY", "a numpy array", _OTHER_FRAMEWORK),
    (0, b"\x89PNG", "a PNG image", "Give a torch state dict or safetensors"),
    (0, b"\xff\xd8\xff", "a JPEG image", "Give a torch state dict or safetensors"),
    (0, b"model_checkpoint_path:", "the list of a TensorFlow checkpoint", _OTHER_FRAMEWORK),
)
_TENSORFLOW_INDEX = b"\x57\xfb\x80\x8b\x24\x75\x47\xdb"  # the last bytes of a table, as TensorFlow writes .index files and old checkpoints
_PAGES = (b"<!doctype html", b"<html", b"<head", b"<body")


def describe_file(path: Path, head: bytes) -> str:
    """What a file that begins with `head` is, and what to do."""
    if not head:
        return "an empty file. Download or copy it again"
    for offset, begin, kind, advice in _BEGINNINGS:
        if head.startswith(begin, offset):
            file = shlex.quote(str(path))
            unpack_gzip = (
                f"tar -xzf {file}" if path.name.endswith((".tar.gz", ".tgz")) else f"gunzip -k {file}"
            )
            return f"{kind}. {advice.format(file=file, unpack_gzip=unpack_gzip)}"
    if text := _describe_text(head):
        return text
    if not head.strip(b"\0"):
        return "a file that begins with zeros, as an interrupted download leaves it. Download it again"
    if _ends_with(path, _TENSORFLOW_INDEX) or re.search(r"\.data-\d+-of-\d+$", path.name):
        return f"a part of a TensorFlow checkpoint. {_OTHER_FRAMEWORK}"
    if is_bundle(path.parent):
        return f"a file of a bundle, not a checkpoint. Commands take the whole folder: bcm-edge inspect {shlex.quote(str(path.parent))}"
    if path.suffix == ".onnx":
        return "an ONNX graph. Give the checkpoint that it was made of: bcm-edge export writes ONNX graphs, and does not read them"
    return "not a checkpoint (neither safetensors nor a torch file)"


def is_text(head: bytes) -> bool:
    """Whether a file can begin so that is text, and no number in 8 bytes: lengths are small, so that their highest bytes are zero."""
    return head.lstrip(BLANK)[:8].isascii() and b"\0" not in head[:8]


def _describe_text(head: bytes) -> str | None:
    text = head.lstrip(BLANK).lower()
    if is_lfs_pointer(text):
        size = re.search(rb"\nsize (\d+)", text)
        megabytes = f" ({int(size[1]) / 1e6:.1f} MB)" if size else ""
        return f"a Git LFS pointer, not the weights{megabytes}. Fetch them, in the folder of the repository, with: git lfs pull"
    if text.startswith(_PAGES):
        return "an HTML page, not weights: the download ended at a web page, often one to log in. Download the file again"
    if text.startswith(b"<?xml"):
        return "an XML document, not weights: servers answer with one where a download is refused. Download the file again"
    if text.startswith((b"{", b"[")):
        return "a JSON file without weights. A network's configuration is given with --config FILE.json, beside the weights file"
    return None


def _ends_with(path: Path, end: bytes) -> bool:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - len(end)))
        return file.read() == end


def describe_pickle() -> str:
    """Of a pickle that torch did not write."""
    return (
        "a Python pickle that torch.save did not write. Pickles can run code, so it is not read. "
        "Save the state dict with the program that wrote it: torch.save(network.state_dict(), 'weights.pt')"
    )


def describe_archive(archive: ZipFile) -> str | None:
    """What a zip archive is if torch.save did not write it; None if it did."""
    names = [
        name for name in archive.namelist() if not name.endswith("/") and not name.startswith("__MACOSX/")
    ]
    tops = {name.partition("/")[0] for name in names if name.count("/") == 1 and name.endswith("/data.pkl")}
    if any(f"{top}/constants.pkl" in names for top in tops):
        return "a TorchScript archive, which holds code. Save the state dict alone: torch.save(network.state_dict(), 'weights.pt')"
    if tops:
        return None
    if names and all(name.endswith(".npy") for name in names):
        return f"an npz archive of numpy arrays ({listed(names, 3)}). {_OTHER_FRAMEWORK}"
    if not names:
        return "an empty zip archive. Download it again"
    return f"a zip archive that torch.save did not write; it holds {listed(names)}. Unpack it, and give the weights file in it"


def describe_folder(folder: Path) -> str | None:
    """What a folder is that is no place for weights files, and what to do; None if it may hold some."""
    if is_bundle(folder):
        return f"a bundle already, not a checkpoint. Commands take it as it is: bcm-edge inspect {shlex.quote(str(folder))}"
    for record in (folder / "data.pkl", *sorted(folder.glob("*/data.pkl"))):
        if is_unpacked(record):
            return describe_unpacked(record.parent)
    if (folder / "saved_model.pb").exists() or any(folder.glob("*.ckpt*.index")):
        return f"a TensorFlow model. {_OTHER_FRAMEWORK}"
    return None


def is_bundle(folder: Path) -> bool:
    """Whether a folder is what `export` writes."""
    return (folder / MANIFEST).is_file() and any(folder.glob("forward*.onnx"))


def is_unpacked(record: Path) -> bool:
    """Whether a file is data.pkl of an unpacked torch file."""
    return record.name == "data.pkl" and record.is_file() and (record.parent / "data").is_dir()


def describe_unpacked(folder: Path) -> str:
    """Of the folder that a torch file becomes when it is unpacked."""
    folder = folder.resolve()
    parent, name = shlex.quote(str(folder.parent)), shlex.quote(folder.name)
    return (
        "an unpacked torch file: some browsers unpack a .pt file when they download it, since it is a zip archive. "
        f"Pack it again, and give the file: cd {parent} && zip -0 -r {name}.pt {name}"
    )
