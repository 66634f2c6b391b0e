"""What somebody has given in place of a bundle, and what to do with it."""

from __future__ import annotations

import difflib
import shlex
from pathlib import Path

_CHECKPOINTS = (".safetensors", ".pt", ".pth", ".ckpt")
_ARCHIVES = (".zip", ".tar", ".tgz", ".gz", ".xz", ".bz2", ".zst", ".7z")


def why_no_bundle(path: Path, manifest: str) -> str:
    """What a path is if it is not a bundle, in words that end a message. manifest: the file that each bundle has. Raises OSError."""
    if path.is_dir():
        inside = sorted(
            file.parent for pattern in ("*", "snapshots/*") for file in path.glob(f"{pattern}/{manifest}")
        )
        return f"(a folder without {manifest}){f'; bundles in it: {_listed(inside)}' if inside else ''}"
    if not path.exists():
        return _nothing_there(path, manifest)
    if (path.parent / manifest).exists():
        return f"(a file of one); give the folder: {_quoted(path.parent)}"
    if path.suffix.lower() in _CHECKPOINTS:
        return f"(a checkpoint); make one of it with: bcm-edge export {_quoted(path)} -o {_quoted(path.with_suffix('.bundle'))}"
    if path.suffix.lower() in _ARCHIVES:
        return f"(an archive); unpack it, and give the folder that has {manifest}"
    return f"(a file); a bundle is a folder, which bcm-edge export makes: bcm-edge export -o {_quoted(path.with_suffix('.bundle'))}"


def _nothing_there(path: Path, manifest: str) -> str:
    if path.suffix.lower() in _CHECKPOINTS:
        return "(nothing there)"
    beside = {folder.parent.name: folder.parent for folder in path.parent.glob(f"*/{manifest}")}
    if close := difflib.get_close_matches(path.name, beside, n=1):
        return f"(nothing there); did you mean {_quoted(beside[close[0]])}?"
    return f"(nothing there); make one with: bcm-edge export -o {_quoted(path)}"


def _listed(folders: list[Path]) -> str:
    shown = [_quoted(folder) for folder in folders[:3]]
    return ", ".join([*shown, *(["…"] if len(folders) > len(shown) else [])])


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))
