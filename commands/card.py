"""bcm-edge card: a model card and pictures in the folder of a bundle, to publish it on a hub."""

from __future__ import annotations

import re
from pathlib import Path

import click
import numpy as np

from ..errors import InputError, OutputError
from ..runtime.arguments import check_labels
from ..runtime.checks.recording import LARGE
from ..runtime.loading import load
from ..runtime.pictures.grids import Grid, rows_of
from ..runtime.pictures.images import read_image_set
from ..runtime.pictures.writing import save_images
from ..runtime.pipeline import BCM
from ..runtime.pixels import SIGNED
from ..runtime.storage.files import check_free, replacing
from ..runtime.storage.rewriting import check_changeable
from ..runtime.wording import counted
from .captions import class_texts, pairs_grid, title
from .card_metadata import evaluated_quality, front_matter, stored_quality
from .card_page import RECONSTRUCTIONS, SAMPLES, card_page, generating
from .console import progress, result
from .options import bundle_argument, force_option, json_option
from .paths import PATH

CARD = "README.md"
COLUMNS, ROWS = 10, 5  # of the grid of samples; of a large model, one row
_LICENCE = re.compile(r"[a-z0-9][a-z0-9.+-]*")


@click.command(
    short_help="Write a model card for a hub into a bundle.",
    epilog="Example:  bcm-edge card digits.bundle --license mit",
)
@bundle_argument
@click.option(
    "--license",
    "licence",
    metavar="NAME",
    required=True,
    help="Licence of the model, by its name on the Hugging Face Hub: mit, apache-2.0, cc-by-4.0, other, …",
)
@click.option(
    "--evaluation",
    type=PATH,
    help="Measurements for the card: the output of `evaluate --json` (default: those in the bundle).",
)
@click.option(
    "--images",
    type=PATH,
    help="Images to show inverted and reconstructed: a file or a folder (default: generated ones).",
)
@force_option
@json_option
def card(
    bundle: Path, licence: str, evaluation: Path | None, images: Path | None, force: bool, as_json: bool
) -> None:
    """Write a model card and pictures into BUNDLE, so that the folder can be uploaded to a hub.

    The card is README.md, with the metadata of the Hugging Face Hub. It contains the facts of the manifest:
    sizes, schedules, verdicts, training and quality. It says what is not recorded. The pictures, samples.png
    and reconstructions.png, are made with the bundle.

    The card describes the bundle as it is now. Write it again, with --force, after the bundle has changed.
    """
    name = licence.lower()
    if not _LICENCE.fullmatch(name):
        raise InputError(
            f"--license: {licence!r} is not the name of a licence; give one such as mit or cc-by-4.0"
        )
    with load(bundle, value_range=SIGNED) as bcm:
        _check_output(bcm, force)
        manifest = bcm.bundle.manifest
        quality = evaluated_quality(evaluation, manifest) if evaluation else stored_quality(manifest)
        captions = _write_pictures(bcm, images)
        page = card_page(bcm.bundle, name, quality, captions)
        text = f"{front_matter(manifest, name, quality.measured)}\n\n{page}"
    with replacing(bundle / CARD, force) as partial:
        partial.write_text(text, encoding="utf-8")
    files = [CARD, *(SAMPLES, RECONSTRUCTIONS)[: len(captions)]]
    progress(f"next: read {bundle / CARD}, and add what only you know: training data, intended use, limits")
    result(as_json, {"card": str(bundle / CARD), "files": files}, str(bundle / CARD))


def _check_output(bcm: BCM, force: bool) -> None:
    """Raise OutputError if a file of the card cannot be written."""
    bundle = bcm.bundle
    check_changeable(bundle)
    for name in (CARD, SAMPLES, RECONSTRUCTIONS):
        if name in bundle.manifest.files:
            raise OutputError(f"{bundle.path / name} is a file of the bundle, which the card would replace")
        check_free(bundle.path / name, force)


def _write_pictures(bcm: BCM, file: Path | None) -> list[str]:
    """Write the pictures of a model of grey or colour images. Returns their captions.

    file: images to reconstruct; None reconstructs the first generated images.
    """
    if bcm.sample_shape[0] not in (1, 3):
        return []
    given = None if file is None else _read(bcm, file)  # before a picture is written
    columns, labels = COLUMNS, None
    if bcm.num_classes is not None:
        columns = min(bcm.num_classes, COLUMNS)
        labels = np.linspace(0, bcm.num_classes - 1, columns).round().astype(np.int64)
    rows = 1 if bcm.bundle.manifest.model.parameters > LARGE else ROWS
    name = generating(bcm.bundle)
    calls = counted(bcm.schedule(name).nfe, "network call")
    progress(f"{SAMPLES}: {counted(rows * columns, 'image')}, {calls} each")
    repeated = None if labels is None else np.tile(labels, rows)
    samples = bcm.generate(rows * columns, schedule=name, labels=repeated)
    line, classes = title([name], bcm.schedule(name).nfe), class_texts(bcm, labels)
    grid = Grid(rows_of(samples, columns), line, column_labels=classes)
    save_images(samples, bcm.bundle.path / SAMPLES, force=True, grid=grid)
    order = "" if labels is None else ", one class per column"
    caption = f"{len(samples)} images, not selected: schedule {name}, {calls} each{order}"
    if given is None:
        return [caption, *_write_reconstructions(bcm, samples[:columns], labels, "generated images")]
    return [caption, *_write_reconstructions(bcm, *given, "images")]


def _read(bcm: BCM, file: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the first images of a file or folder with their labels, which are guessed if it has none."""
    source = read_image_set([file], bcm.sample_shape)
    images = source.images[:COLUMNS]
    if bcm.num_classes is None:
        return images, None
    if source.labels is None:
        return images, bcm.guess_labels(images)
    return images, check_labels(source.labels[:COLUMNS], len(images), bcm.num_classes, bcm.classes)


def _write_reconstructions(bcm: BCM, images: np.ndarray, labels: np.ndarray | None, noun: str) -> list[str]:
    """Write images above their reconstructions. Returns the caption, or nothing if the bundle cannot invert.

    images: float32 [N, C, H, W] in [-1, 1]. labels: int64 [N], None for a model without classes.
    """
    schedules = {name: bcm.schedule(name) for name in bcm.schedules}
    inversions = [name for name, schedule in schedules.items() if schedule.inverts]
    if not inversions:
        return []
    name = max(inversions, key=lambda name: schedules[name].nfe)
    calls = counted(schedules[name].nfe, "network call")
    progress(f"{RECONSTRUCTIONS}: {counted(len(images), 'image')}, {calls} and one back")
    reconstructed = bcm.reconstruct(images, inversion=name, labels=labels)
    line = title([name, "one-step"], schedules[name].nfe + 1)
    grid = pairs_grid(images, reconstructed, class_texts(bcm, labels), line, columns=len(images))
    save_images(reconstructed, bcm.bundle.path / RECONSTRUCTIONS, force=True, grid=grid)
    return [f"Above: {noun}. Below: the same after inversion ({name}, {calls}) and one network call back"]
