"""Checks of the files of a bundle: they lie inside it, are complete, and are the ones that were exported."""

from __future__ import annotations

import errno
import os
import shlex
from pathlib import Path, PurePosixPath

from ...errors import BundleError
from .external_data import external_files
from .files import is_lfs_pointer
from .hashes import sha256
from .manifest import MANIFEST, FileFacts
from .not_bundles import why_no_bundle

MANIFEST_LIMIT = 16 << 20  # bytes; a manifest has a few thousand
_POINTER_LIMIT = 1024  # bytes, by the specification of Git LFS


def manifest_text(bundle: Path) -> bytes:
    """Return the content of manifest.json.

    Raises BundleError if there is no manifest that belongs to this bundle, OSError if it cannot be read.
    """
    file = bundle / MANIFEST
    if bundle.is_dir() and not os.access(bundle, os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    if not bundle.is_dir() or not os.path.lexists(file):
        raise BundleError(f"{bundle}: not a bundle {why_no_bundle(bundle, MANIFEST)}")
    _check_links(bundle, MANIFEST)
    if not file.is_file():
        raise BundleError(f"{file}: not a file")
    if file.stat().st_size > MANIFEST_LIMIT:
        raise BundleError(f"{file}: too large for a manifest")
    return file.read_bytes()


def inside(bundle: Path, name: str) -> Path:
    """Return the file that a manifest lists as `name`. Raises BundleError for a path out of the bundle."""
    path = PurePosixPath(name)
    leads_out = path.is_absolute() or not path.parts or ".." in path.parts
    if leads_out or any(character in name for character in "\\:\0"):
        raise BundleError(f"{bundle}: the manifest lists {name!r}, which is not a path inside the bundle")
    return bundle / path


def check_file(bundle: Path, name: str, facts: FileFacts) -> None:
    """Raise BundleError unless a file of the bundle exists and has the size and hash of the manifest."""
    file = inside(bundle, name)
    _check_links(bundle, name)
    if not file.exists():
        raise BundleError(f"{bundle}: {name} is missing; export the bundle again or copy it whole")
    size = file.stat().st_size
    if not file.is_file() or size != facts.size:
        raise BundleError(
            f"{bundle}: {name} has {size} bytes, but {facts.size} according to the manifest; "
            "it was changed or truncated; export the bundle again or copy it whole"
        )
    if sha256(file) != facts.sha256:
        raise BundleError(
            f"{bundle}: {name} is not the file that was exported (its sha256 differs from the manifest); "
            "export the bundle again or copy it whole"
        )


def check_external_data(bundle: Path, graph: str, files: set[str]) -> None:
    """Raise BundleError if a graph loads weights from anything but `files`, the files of the manifest."""
    try:
        names = weight_files(bundle, graph)
    except ValueError as error:
        raise BundleError(f"{bundle}: {graph} is not a graph that this package writes ({error})") from error
    if not names <= files:
        raise BundleError(f"{bundle}: {graph} loads weights from files that do not belong to this bundle")


def weight_files(bundle: Path, graph: str) -> set[str]:
    """Return the files from which a graph loads weights, as names in the bundle. Raises ValueError."""
    folder = PurePosixPath(graph).parent  # locations are relative to the graph
    locations = external_files((bundle / graph).read_bytes())
    return {str(folder / location) for location in locations}


def _check_links(bundle: Path, name: str) -> None:
    """Raise BundleError for a link to a file outside the bundle, and for a Git LFS pointer.

    Links inside the bundle are followed: Kubernetes creates such links in mounted volumes.
    """
    file = Path(os.path.realpath(bundle / name))
    if not file.is_relative_to(os.path.realpath(bundle)):
        if not file.exists():
            raise BundleError(
                f"{bundle}: {name} is a link to {file}, which does not exist; copy the bundle again "
                "with the files that its links lead to"
            )
        copy = f"{bundle.resolve().name.removesuffix('.bundle')}-copy.bundle"
        raise BundleError(
            f"{bundle}: {name} is a link to a file outside the bundle, and such links are not followed "
            "(a Hugging Face cache consists of them); copy the files into a new bundle with: "
            f"cp -rL {shlex.quote(str(bundle))} {shlex.quote(copy)}"
        )
    if file.is_file() and file.stat().st_size < _POINTER_LIMIT and is_lfs_pointer(file.read_bytes()):
        raise BundleError(
            f"{bundle}: {name} is a Git LFS pointer, not the file; get the files with: git lfs pull"
        )
