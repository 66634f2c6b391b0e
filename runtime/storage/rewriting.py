"""Change the manifest or the files of a bundle, completely or not at all."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ...errors import OutputError
from .bundle import Bundle, read_manifest
from .files import check_free, folder_beside, replacing, write_atomically
from .manifest import MANIFEST, Manifest
from .shipped import shipped_name


def check_changeable(bundle: Bundle) -> None:
    """Raise OutputError for a packed bundle and for a bundle in the package, which are never changed.

    Call it before a long computation whose result is stored in the bundle.
    """
    if name := shipped_name(bundle.path):
        raise OutputError(
            f"{name} is a model in the package, whose files are not changed; "
            f"make a bundle of your own first: bcm-edge export {name} -o {name}.bundle"
        )
    if bundle.packed:
        packed, folder = (
            shlex.quote(str(path)) for path in (bundle.packed, bundle.packed.with_suffix(".bundle"))
        )
        raise OutputError(
            f"{bundle.packed}: a packed bundle is not changed; unpack it with: "
            f"bcm-edge unpack {packed} -o {folder}"
        )


def update_manifest(bundle: Bundle, change: Callable[[Manifest], Manifest]) -> Bundle:
    """Apply `change` to the manifest on disk, and return the bundle with the new manifest.

    The other files stay as they are. Verdicts that other commands have added since the bundle was opened
    are kept. Raises OutputError if the files of the bundle have changed since, or on a failed write.
    """
    check_changeable(bundle)
    manifest = _unchanged(bundle)
    try:
        write_atomically(bundle.path / MANIFEST, change(manifest).to_json())
    except OSError as error:
        raise OutputError(f"{bundle.path / MANIFEST}: cannot be written ({error.strerror})") from error
    return Bundle(bundle.path, change(manifest))


def _unchanged(bundle: Bundle) -> Manifest:
    """Return the manifest on disk. Raises OutputError if it lists other files than when it was opened."""
    manifest = read_manifest(bundle.path)
    if manifest.files != bundle.manifest.files:
        raise OutputError(
            f"{bundle.path}: another command changed the files of this bundle meanwhile; run this again"
        )
    return manifest


@contextmanager
def amending(bundle: Bundle) -> Iterator[Path]:
    """Yield an empty folder. When the block ends without an error, its files are added to the bundle.

    They replace files of the same name. A manifest that describes the new files must be among them. The
    bundle is replaced by a new folder at once; files that stay are hard links or, where the file system
    has no hard links, copies. Raises OutputError, also as `check_changeable`.
    """
    check_changeable(bundle)
    place = bundle.path.resolve()  # if the path is a link, the link stays
    check_free(bundle.path, force=True, marker=MANIFEST)
    try:
        with folder_beside(place) as folder:
            yield folder
            _unchanged(bundle)
            _join(folder, place)
    except OSError as error:
        raise OutputError(f"{bundle.path}: cannot be written ({error.strerror or error})") from error


def _join(stage: Path, place: Path) -> None:
    """Move the files in `stage` into the bundle at `place`."""
    new_names = {file.name for file in stage.iterdir()}
    assert MANIFEST in new_names

    def replaced(folder: str, names: list[str]) -> set[str]:
        return new_names.intersection(names) if Path(folder) == place else set()

    with replacing(place, force=True, marker=MANIFEST) as new_bundle:
        shutil.copytree(place, new_bundle, ignore=replaced, copy_function=_link_or_copy)
        for name in new_names:
            (stage / name).rename(new_bundle / name)


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # no hard links on this file system
        shutil.copy2(source, target)
