"""bcm-edge pack and unpack: a bundle in one file."""

from __future__ import annotations

from pathlib import Path

import click

from ..errors import OutputError
from ..runtime.storage.bundle import Bundle, open_bundle
from ..runtime.storage.files import replacing
from ..runtime.storage.manifest import MANIFEST
from ..runtime.storage.packed import SUFFIX, write_packed
from ..runtime.storage.unpacking import unpack as unpack_bundle
from ..runtime.wording import listed
from .console import note, progress, result
from .options import bundle_argument, force_option, json_option, output_option
from .paths import PATH


@click.command(
    short_help="Pack a bundle into one file.",
    epilog="Example:  bcm-edge pack digits.bundle -o digits.bcm",
)
@bundle_argument
@output_option(f"The file to write; its name ends in {SUFFIX}.", "file")
@force_option
@json_option
def pack(bundle: Path, output: Path, force: bool, as_json: bool) -> None:
    """Pack BUNDLE into one file, for a hub, an object store or a device image.

    Every command and bcm_edge.load accept the file in place of the folder. It is a zip archive without
    compression, which any unzip program opens. Weights are aligned to 4096 bytes. The same bundle always
    gives the same file.

    The files of the manifest are packed. Other files are left out, such as TensorRT engines, which run on
    one kind of machine only.
    """
    if output.suffix.lower() != SUFFIX:
        raise OutputError(
            f"{output}: packed bundles are recognised by their name; give one that ends in {SUFFIX}"
        )
    opened = open_bundle(bundle)
    with replacing(output, force) as partial:
        write_packed(opened.path, opened.manifest.files, partial)
    left_out = _left_out(opened)
    if left_out:
        note(f"not packed, because the manifest does not list them: {listed(left_out)}")
    size = output.stat().st_size
    progress(f"{len(opened.manifest.files) + 1} files, {size / 1e6:.1f} MB")
    result(as_json, {"packed": str(output), "bytes": size, "left_out": left_out}, str(output))


@click.command(
    short_help="Unpack a packed bundle into a folder.",
    epilog="Example:  bcm-edge unpack digits.bcm -o digits.bundle",
)
@click.argument("file", type=PATH)
@output_option("The bundle to write (a folder).", "folder")
@force_option
@json_option
def unpack(file: Path, output: Path, force: bool, as_json: bool) -> None:
    """Unpack FILE, which `bcm-edge pack` made, into a bundle.

    Commands that change a bundle (calibrate, build) need the folder. The sha256 of every file is checked.
    """
    unpack_bundle(file, output, force)
    names = list(open_bundle(output).manifest.files)
    progress(f"{len(names) + 1} files, all with the sha256 of the manifest")
    result(as_json, {"bundle": str(output), "files": [MANIFEST, *names]}, str(output))


def _left_out(bundle: Bundle) -> list[str]:
    """Return the files and folders of a bundle that the manifest does not list; folders end in /."""
    packed = {MANIFEST, *bundle.manifest.files}
    folders = {name.split("/")[0] for name in packed if "/" in name}
    return [
        f"{entry.name}/" if entry.is_dir() else entry.name
        for entry in sorted(bundle.path.iterdir())
        if entry.name not in packed | folders
    ]
