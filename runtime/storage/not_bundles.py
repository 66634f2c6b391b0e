"""Explain what a path is that is not a bundle, and what to do with it."""

from __future__ import annotations

import difflib
import shlex
from pathlib import Path

_CHECKPOINTS = (".safetensors", ".pt", ".pth", ".ckpt")
_ARCHIVES = (".zip", ".tar", ".tgz", ".gz", ".xz", ".bz2", ".zst", ".7z")
_SHOWN = 3  # bundles that a message lists


def why_no_bundle(path: Path, manifest: str) -> str:
    """Return what a path is if it is not a bundle, and what to do, as the end of an error message.

    manifest: the name of the file that every bundle contains. Raises OSError.
    """
    if path.is_dir():
        return _folder(path, manifest)
    if not path.exists():
        return _missing(path, manifest)
    if (path.parent / manifest).exists():
        return f"(a file of a bundle); give the folder: {_quoted(path.parent)}"
    bundle = _quoted(path.with_suffix(".bundle"))
    if path.suffix.lower() in _CHECKPOINTS:
        return f"(a checkpoint); make a bundle from it with: bcm-edge export {_quoted(path)} -o {bundle}"
    if path.suffix.lower() in _ARCHIVES:
        return f"(an archive); unpack it, and give the folder that contains {manifest}"
    return f"(a file); a bundle is a folder, make one with: bcm-edge export -o {bundle}"


def _folder(folder: Path, manifest: str) -> str:
    bundles = [
        *(file.parent for file in folder.glob(f"*/{manifest}")),
        *(file.parent for file in folder.glob(f"snapshots/*/{manifest}")),  # as in a Hugging Face cache
    ]
    names = f"; bundles in it: {_listed(sorted(bundles))}" if bundles else ""
    return f"(a folder without {manifest}){names}"


def _missing(path: Path, manifest: str) -> str:
    if path.suffix.lower() in _CHECKPOINTS:
        return "(no such file)"
    neighbours = {file.parent.name: file.parent for file in path.parent.glob(f"*/{manifest}")}
    similar = difflib.get_close_matches(path.name, neighbours, n=1)
    if similar:
        return f"(no such folder); did you mean {_quoted(neighbours[similar[0]])}?"
    return f"(no such folder); make a bundle with: bcm-edge export -o {_quoted(path)}"


def _listed(folders: list[Path]) -> str:
    names = [_quoted(folder) for folder in folders[:_SHOWN]]
    if len(folders) > _SHOWN:
        names.append("…")
    return ", ".join(names)


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))
