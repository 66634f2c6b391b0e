"""The common part of commands that make images: options, reading, the run with a progress bar, writing."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import click
import numpy as np

from ..errors import LabelError, OutputError
from ..runtime.arguments import Seeds, check_labels, check_seeds
from ..runtime.calls import OnMove
from ..runtime.classes import GUESS, label_texts
from ..runtime.loading import load
from ..runtime.machine.resources import check_memory
from ..runtime.pictures.grids import Grid, enlargement
from ..runtime.pictures.images import ImageSet, read_image_set
from ..runtime.pictures.writing import check_output, lossy_note, save_images
from ..runtime.pipeline import BCM
from ..runtime.pixels import SIGNED, ValueRange
from ..runtime.schedule import Schedule
from ..runtime.tasks.classes import DRAWS
from ..runtime.wording import counted
from .captions import class_texts
from .console import move_progress, note, note_engines, progress, result
from .options import (
    backend_option,
    batch_option,
    device_option,
    force_option,
    json_option,
    label_option,
    metadata_option,
    output_option,
    parse_labels,
    precision_option,
    scale_option,
    threads_option,
    value_range_option,
)
from .origin import origin
from .paths import PATH

LABELS = (
    "Class labels: a number, a name, a list that is repeated in order (0,1,2 or dog,cat), or all "
    "(default: those in the file of --latents; required for class-conditional models otherwise)."
)
GUESSABLE = (
    "Class labels: a number, a name, a list that is repeated in order (0,1,2 or dog,cat), all, or guess "
    "to let the model guess them (default: those in the input file, or the names of a folder's "
    "sub-folders; required for class-conditional models otherwise)."
)
GUESSED_BY_DEFAULT = (
    "Class labels: a number, a name, a list that is repeated in order (0,1,2 or dog,cat), all, or guess "
    "to let the model guess them (default: guess)."
)
SHOWN = 16  # guessed labels in one line
T = TypeVar("T")

images_argument = click.argument("images", nargs=-1, required=True, type=PATH)


@dataclass(frozen=True)
class Run:
    """The options that all commands that make images have, and the steps that they share."""

    # --seed, None if it is not given.
    given_seed: int | None
    # --label, None if it is not given.
    label: str | None
    # The range of float images in files, None if it is not given.
    value_range: ValueRange
    # The file or folder to write.
    output: Path
    # A name of runtime/backends, or "auto".
    backend: str
    # A name of runtime.storage.manifest.PRECISIONS; None for the default of the backend.
    precision: str | None
    # CPU threads, None for the default.
    threads: int | None
    # cpu, gpu or cuda:N; None for the device of the backend.
    device: str | None
    # Images per network call, None for the default of the backend.
    batch: int | None
    # How many times larger image files show images; None for the default, 1 for the plain pixels.
    scale: int | None
    # Whether PNG files say how their images were made.
    metadata: bool
    # Whether an existing output is replaced.
    force: bool
    # Whether the result is printed as JSON.
    as_json: bool

    @property
    def seed(self) -> int:
        """The seed of the first image."""
        return self.given_seed or 0

    def open(self, bundle: Path, suffixes: Sequence[str] = ()) -> BCM:
        """Open the bundle, and check that the output can be written. Raises BcmError.

        suffixes: those of outputs that the command writes in a way of its own, such as .gif.
        """
        # `read` converts all images to this range.
        bcm = load(
            bundle,
            self.backend,
            self.batch,
            self.precision,
            SIGNED,
            threads=self.threads,
            device=self.device,
        )
        note_engines(bcm.bundle, bcm.backend, self.backend, self.device)
        check_output(self.output, bcm.sample_shape[0], self.force, suffixes)
        bundle_files = {Path(os.path.realpath(bcm.bundle.path / name)) for name in bcm.bundle.manifest.files}
        if Path(os.path.realpath(self.output)) in bundle_files:
            raise OutputError(f"{self.output} is a file of the bundle; choose another output")
        if loss := lossy_note(self.output, bcm.sample_shape[0]):
            note(loss)
        return bcm

    def images(self, bcm: BCM, paths: Sequence[Path], sample_shape: tuple[int, int, int]) -> ImageSet:
        """Read the images of files, folders or one array file, and print what was converted or left out.

        Labels are read as well, if the model needs them and --label is not given.
        Raises ImageError, LabelError.
        """
        with_labels = self.label is None and bcm.num_classes is not None
        images = read_image_set(paths, sample_shape, self.value_range, with_labels)
        if images.note:
            note(images.note)
        return images

    def read(
        self,
        bcm: BCM,
        paths: Sequence[Path],
        sample_shape: tuple[int, int, int] | None = None,
        **known: Any,
    ) -> tuple[ImageSet, Any]:
        """Return the images, and their labels from --label, or else from the npz file or the sub-folders.

        sample_shape: the shape of the images in the files (default: that of the model).
        known: for incomplete images, what is known of them: arguments of `BCM.guess_labels`.
        Raises ImageError, LabelError.
        """
        images = self.images(bcm, paths, sample_shape or bcm.sample_shape)
        if self.label == GUESS:
            return images, self.guessed(bcm, images.images, **known)
        if self.label is not None:
            return images, parse_labels(self.label, len(images.images), bcm)
        labels = stored_labels(images.labels, len(images.images), bcm, images.labels_from)
        if labels is None:
            check_needs_no_labels(bcm)
        return images, labels

    def guessed(self, bcm: BCM, images: np.ndarray, **known: Any) -> np.ndarray:
        """Return the labels int64 [N] that the model guesses for images, and print them.

        known: for incomplete images, what is known of them: arguments of `BCM.guess_labels`.
        """
        calls = DRAWS * (bcm.num_classes or 0)
        with move_progress("guessing labels") as on_move:
            labels = bcm.guess_labels(images, **known, seed=self.seed, on_move=on_move)
        names = label_texts(labels[:SHOWN], bcm.classes)
        more = ", …" if len(labels) > SHOWN else ""
        progress(f"guessed labels ({calls} NFE per image): {', '.join(names)}{more}")
        return labels

    def play(
        self,
        bcm: BCM,
        title: str,
        program: Schedule,
        n: int,
        work: Callable[[OnMove | None], T],
    ) -> tuple[T, dict[str, Any]]:
        """Do the work under a progress bar, and return what it returns and the facts of the run.

        title: the text of the progress bar. n: number of images.
        Raises InputError, before the work starts, if the images of a picture do not fit into memory.
        """
        if self.output.suffix and self.output.suffix.lower() != ".npz":
            _check_picture(n, bcm.sample_shape, self.scale)
        with move_progress(title) as on_move:
            started = time.perf_counter()
            values = work(on_move)
            seconds = time.perf_counter() - started
        return values, {
            "output": str(self.output),
            "images": n,
            "schedule": str(program),
            "nfe": program.nfe,
            "seconds": seconds,
        }

    def per_image(self, n: int, labels: Any, seeds: Seeds | None = None) -> dict[str, np.ndarray | None]:
        """Return the arrays that are written beside n images: `seeds` uint64 [n], `labels` int64 [n] or None.

        seeds: by default --seed and the integers that follow it.
        """
        all_seeds = np.array(check_seeds(self.seed if seeds is None else seeds, n), np.uint64)
        return {"seeds": all_seeds, "labels": None if labels is None else np.asarray(labels, np.int64)}

    def save(
        self,
        bcm: BCM,
        images: np.ndarray,
        facts: Mapping[str, Any],
        grid: Grid | None,
        **arrays: np.ndarray | None,
    ) -> None:
        """Write images [N, C, H, W] to the output.

        facts: what `play` returned. grid: what a picture shows; None for a single image without labels.
        arrays: those of an npz file, and the columns of a folder's index. `seeds` and `labels` are also
        written into PNG files.
        """
        known = self.origin(bcm, facts, **arrays)
        is_npz = self.output.suffix.lower() == ".npz"
        kept = arrays if is_npz else {name: arrays[name] for name in ("seeds", "labels") if name in arrays}
        save_images(images, self.output, self.force, arrays=kept, grid=grid, scale=self.scale, facts=known)

    def origin(
        self, bcm: BCM, facts: Mapping[str, Any], **arrays: np.ndarray | None
    ) -> dict[str, Any] | None:
        """Return what PNG files say about their images, None with --no-metadata. Arguments as for `save`."""
        if not self.metadata:
            return None
        shown = {name: facts[name] for name in ("schedule", "nfe", "images")}
        seeds = arrays.get("seeds")
        if seeds is not None:
            shown["seeds"] = seeds.tolist()
        if names := class_texts(bcm, arrays.get("labels")):
            shown["labels"] = names
        return origin(bcm, self.seed, shown)

    def report(self, bcm: BCM, facts: dict[str, Any], each: str = "each") -> None:
        """Print a line about the run on stderr, and the result. each: what the NFE are counted per."""
        done = f"{counted(facts['images'], 'image')} in {facts['seconds']:.2f} s"
        program = f"{facts['schedule']}, {facts['nfe']} NFE {each}"
        progress(f"{done} ({program}) in {bcm.backend.precision} on {bcm.backend.name}: {bcm.backend.device}")
        values = {**facts, "backend": bcm.backend.name, "precision": bcm.backend.precision}
        result(self.as_json, values, str(self.output))


def run_options(
    output_help: str, label_help: str = LABELS
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options of `Run`, and pass it the `Run` as its argument `run`."""
    options = (
        click.option(
            "--seed",
            "given_seed",
            metavar="N",
            type=click.IntRange(0),
            help="Seed of the first image; image k gets seed N + k (default: 0).",
        ),
        label_option(label_help),
        value_range_option,
        output_option(output_help),
        backend_option,
        precision_option,
        threads_option,
        device_option,
        batch_option,
        scale_option,
        metadata_option,
        force_option,
        json_option,
    )

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(function)
        def command(**values: Any) -> None:
            run = Run(**{field.name: values.pop(field.name) for field in fields(Run)})
            function(run=run, **values)

        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def stored_labels(labels: np.ndarray | None, n: int, bcm: BCM, source: Path | str) -> np.ndarray | None:
    """Return the labels int64 [n] that a file or folder has for n images or latents, as the model numbers
    its classes.

    source: the file, or the folders whose sub-folders name the labels.

    None if the file has no labels or the model has no classes. Raises LabelError for an unknown class, and
    for another number of labels.
    """
    if labels is None or bcm.num_classes is None:
        return None
    try:
        return check_labels(np.atleast_1d(labels), n, bcm.num_classes, bcm.classes)
    except LabelError as error:
        raise LabelError(f"{source}: {error}; --label replaces these labels") from None


def check_needs_no_labels(bcm: BCM) -> None:
    """Raise LabelError if the model has classes."""
    try:
        check_labels(None, 1, bcm.num_classes, bcm.classes)
    except LabelError as error:
        raise LabelError(f"{error}; --label guess lets the model guess them") from None


def _check_picture(n: int, sample_shape: tuple[int, int, int], scale: int | None) -> None:
    """Raise InputError if a picture of n images does not fit into memory. scale: as in `save_images`."""
    channels, height, width = sample_shape
    factor = scale or enlargement(height, width)
    # Four copies of an enlarged image: itself, two while the grid is made, one in Pillow.
    copies = 4 * channels * height * width * factor**2
    advice = "make fewer images, write them to .npz or a folder, or give --scale 1"
    check_memory(n * copies, f"a picture of {n} images", advice)
