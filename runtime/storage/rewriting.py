"""Changing a bundle: its manifest alone, or its files, and never half."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ...errors import OutputError
from .bundle import MANIFEST, Bundle, Manifest, read_manifest
from .files import check_free, folder_beside, replacing, write_atomically


def update_manifest(bundle: Bundle, change: Callable[[Manifest], Manifest]) -> Bundle:
    """Change a bundle's manifest as it is now, whole or not at all; the other files stay. Raises OutputError.

    Commands that ran meanwhile may have added verdicts, which are kept; if they changed files, what was found here is not about them.
    """
    manifest = _unchanged(bundle)
    try:
        write_atomically(bundle.path / MANIFEST, change(manifest).to_json())
    except OSError as error:
        raise OutputError(f"{bundle.path / MANIFEST}: cannot be written ({error.strerror})") from error
    return Bundle(bundle.path, change(manifest))


def _unchanged(bundle: Bundle) -> Manifest:
    """The manifest on disk, if it still describes the files that were opened."""
    manifest = read_manifest(bundle.path)
    if manifest.files != bundle.manifest.files:
        raise OutputError(
            f"{bundle.path}: its files were changed by something else meanwhile; run this again"
        )
    return manifest


@contextmanager
def amending(bundle: Bundle) -> Iterator[Path]:
    """Yield an empty folder; when the block ends without an error, what was put there joins the bundle, over files of the same name.

    A manifest that describes them must be among them. Files that stay are hard links for a moment, so nothing is copied where links
    exist. Raises OutputError.
    """
    place = bundle.path.resolve()  # not the link that leads there
    check_free(bundle.path, force=True, marker=MANIFEST)
    try:
        with folder_beside(place) as folder:
            yield folder
            _unchanged(bundle)
            _join(folder, place)
    except OSError as error:
        raise OutputError(f"{bundle.path}: cannot be written ({error.strerror or error})") from error


def _join(stage: Path, place: Path) -> None:
    new = {file.name for file in stage.iterdir()}
    assert MANIFEST in new

    def replaced(folder: str, names: list[str]) -> set[str]:
        return new.intersection(names) if Path(folder) == place else set()

    with replacing(place, force=True, marker=MANIFEST) as whole:
        shutil.copytree(place, whole, ignore=replaced, copy_function=_link_or_copy)
        for name in new:
            (stage / name).rename(whole / name)


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # no hard links on this file system
        shutil.copy2(source, target)
