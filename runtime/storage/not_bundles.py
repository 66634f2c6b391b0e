"""Explain what a path is that is not a bundle, and what to do with it."""

from __future__ import annotations

import difflib
import os
import shlex
from pathlib import Path

from .shipped import SHIPPED

_SHARDS = ".safetensors.index.json"  # end of the name of the index of a checkpoint in shards
_CHECKPOINTS = (".safetensors", ".pt", ".pth", ".ckpt", _SHARDS)
_ARCHIVES = (".zip", ".tar", ".tgz", ".gz", ".xz", ".bz2", ".zst", ".7z")
# Files of diffusers: in the folder of a pipeline, and the beginning of the names of weights files.
PIPELINE_FILE, UNET_WEIGHTS = "model_index.json", "diffusion_pytorch_model"
_SHOWN = 3  # bundles or checkpoints that a message lists


def why_no_bundle(path: Path, manifest: str) -> str:
    """Return what a path is if it is not a bundle, and what to do, as the end of an error message.

    manifest: the name of the file that every bundle contains. Raises OSError.
    """
    if str(path) in SHIPPED and os.path.lexists(path):
        kind = "folder" if path.is_dir() else "file"
        return f"(a {kind} in the current folder); rename it to use the shipped model of this name"
    if path.is_dir():
        return _folder(path, manifest)
    if not path.exists():
        return _missing(path, manifest)
    if (path.parent / manifest).exists():
        return f"(a file of a bundle); give the folder: {_quoted(path.parent)}"
    if is_checkpoint(path):
        return f"(a checkpoint); make a bundle from it with: {_export(path)}"
    bundle = _quoted(path.with_suffix(".bundle"))
    if path.suffix.lower() == ".onnx":
        return (
            "(an ONNX file); a bundle is made from the checkpoint that the ONNX file was made from: "
            f"bcm-edge export CHECKPOINT -o {bundle}"
        )
    if path.suffix.lower() in _ARCHIVES:
        return f"(an archive); unpack it, and give the folder that contains {manifest}"
    return f"(a file); a bundle is a folder, make one with: bcm-edge export CHECKPOINT -o {bundle}"


def is_diffusers_folder(path: Path) -> bool:
    """Return whether a path is the folder of a pipeline of diffusers, or of one of its networks."""
    if not os.path.isdir(path):  # noqa: PTH112, a name may be too long for stat
        return False
    return (path / PIPELINE_FILE).is_file() or any(path.glob(f"{UNET_WEIGHTS}*"))


def _folder(folder: Path, manifest: str) -> str:
    if is_diffusers_folder(folder):
        return (
            "(a model of diffusers); a bundle needs a network trained to invert, train it with: "
            f"bcm-edge train --init {_quoted(folder)} --data …"
        )
    bundles = [
        *(file.parent for file in folder.glob(f"*/{manifest}")),
        *(file.parent for file in folder.glob(f"snapshots/*/{manifest}")),  # as in a Hugging Face cache
    ]
    if bundles:
        return f"(a folder without {manifest}); bundles in it: {_listed(sorted(bundles))}"
    checkpoints = _checkpoints(folder)
    if len(checkpoints) == 1:
        return f"(a folder with a checkpoint); make a bundle from it with: {_export(checkpoints[0])}"
    if checkpoints:
        advice = f"make a bundle from one of them, such as: {_export(checkpoints[0])}"
        return f"(a folder with checkpoints: {_listed(checkpoints)}); {advice}"
    return f"(a folder without {manifest}); bcm-edge export makes a bundle"


def _checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints in a folder, one for a checkpoint in shards: its index."""
    files = sorted(file for file in folder.iterdir() if file.is_file() and is_checkpoint(file))
    names = [file.name.removesuffix(_SHARDS) for file in files if file.name.endswith(_SHARDS)]
    shards = tuple(f"{name}-" for name in names)
    return [file for file in files if file.name.endswith(_SHARDS) or not file.name.startswith(shards)]


def is_checkpoint(path: Path) -> bool:
    """Return whether a file has the name of a checkpoint."""
    return path.name.lower().endswith(_CHECKPOINTS)


def _missing(path: Path, manifest: str) -> str:
    if is_checkpoint(path) or path.suffix.lower() in (".onnx", *_ARCHIVES):
        return "(no such file)"
    neighbours = {file.parent.name: file.parent for file in path.parent.glob(f"*/{manifest}")}
    similar = difflib.get_close_matches(path.name, neighbours, n=1)
    if similar:
        return f"(no such folder); did you mean {_quoted(neighbours[similar[0]])}?"
    if path.stem in SHIPPED:
        command = f"bcm-edge export {path.stem} -o {_quoted(path)}"
        return f"(no such folder); give {path.stem}, a model in the package, or make a bundle with: {command}"
    shipped = difflib.get_close_matches(str(path).lower(), SHIPPED, n=1)
    if shipped:
        return f"(no such folder); did you mean {shipped[0]}, a model in the package?"
    advice = f"give a bundle, or a model in the package: {', '.join(SHIPPED)}; bcm-edge export makes a bundle"
    return f"(no such folder); {advice}"


def _listed(folders: list[Path]) -> str:
    names = [_quoted(folder) for folder in folders[:_SHOWN]]
    if len(folders) > _SHOWN:
        names.append("…")
    return ", ".join(names)


def _export(checkpoint: Path) -> str:
    """Return the command that makes a bundle beside a checkpoint."""
    name = checkpoint.name.removesuffix(_SHARDS)
    bundle = (checkpoint.parent / name).with_suffix(".bundle")
    return f"bcm-edge export {_quoted(checkpoint)} -o {_quoted(bundle)}"


def _quoted(path: Path) -> str:
    """Return a path as it is typed in a shell. One that begins like an option gets ./ before it."""
    return shlex.quote(f"./{path}" if str(path).startswith("-") else str(path))
