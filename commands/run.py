"""What the commands that make images share: their options, reading inputs, playing under a progress bar, the report at the end."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import click
import numpy as np

from ..errors import LabelError, OutputError
from ..runtime.arguments import Seeds, check_labels, check_seeds
from ..runtime.batches import BATCH
from ..runtime.chain import OnMove
from ..runtime.classes import GUESS
from ..runtime.loading import load
from ..runtime.machine.resources import check_memory
from ..runtime.pictures.images import ImageSet, read_images
from ..runtime.pictures.writing import CELL, check_output, lossy_note, save_images
from ..runtime.pipeline import BCM
from ..runtime.pixels import SIGNED, ValueRange
from ..runtime.schedule import Schedule
from ..runtime.tasks.classes import DRAWS
from ..runtime.wording import counted
from .console import (
    backend_option,
    force_option,
    json_option,
    move_progress,
    note_engines,
    output_option,
    parse_labels,
    precision_option,
    progress,
    result,
    value_range_option,
)
from .paths import PATH

LABELS = "Class labels: a number, a name, a list such as 0,1,2 or dog,cat taken in turn, or all."
GUESSABLE = "Class labels: a number, a name, a list such as 0,1,2 or dog,cat taken in turn, or all; or guess: the model says which."
SHOWN = 16  # guessed labels in a line
T = TypeVar("T")

schedule_option = click.option(
    "--schedule",
    default="one-step",
    show_default=True,
    help="To the image: a schedule's name or text, as in '80>2.4>0.002'.",
)
inversion_option = click.option(
    "--inversion", default="invert-2", show_default=True, help="To the noise: a schedule's name or text."
)
images_argument = click.argument("images", nargs=-1, required=True, type=PATH)


@dataclass(frozen=True)
class Run:
    """The options that all of them have, and what they do with them."""

    given_seed: int | None
    label: str | None
    value_range: ValueRange
    output: Path
    backend: str
    precision: str | None
    batch: int | None
    force: bool
    as_json: bool

    @property
    def seed(self) -> int:
        """Of the first image."""
        return self.given_seed or 0

    def open(self, bundle: Path, also: Sequence[str] = ()) -> BCM:
        """The model; checks that the output can be written. also: suffixes that the caller writes itself."""
        bcm = load(bundle, self.backend, self.batch, self.precision, SIGNED)  # to which `read` converts
        if self.backend == "auto":
            note_engines(bcm.bundle, bcm.backend)
        check_output(self.output, bcm.sample_shape[0], self.force, also)
        if Path(os.path.realpath(self.output)) in {
            Path(os.path.realpath(bundle / name)) for name in bcm.bundle.manifest.files
        }:
            raise OutputError(f"{self.output} is a file of the bundle; choose another name")
        if note := lossy_note(self.output, bcm.sample_shape[0]):
            progress(f"note: {note}")
        return bcm

    def images(self, bcm: BCM, paths: Sequence[Path], sample_shape: tuple[int, int, int]) -> ImageSet:
        """The images of files, folders or an array file, with labels if they will be used; says what was converted or left out."""
        with_labels = self.label is None and bcm.num_classes is not None
        images = read_images(paths, sample_shape, self.value_range, with_labels)
        if images.note:
            progress(f"note: {images.note}")
        return images

    def read(
        self,
        bcm: BCM,
        paths: Sequence[Path],
        sample_shape: tuple[int, int, int] | None = None,
        whole: bool = True,
    ) -> tuple[ImageSet, Any]:
        """The images, of the model's shape unless told another, and their labels: from --label, else from the npz.

        whole: that the images lack nothing, so that labels can be guessed from them.
        """
        if self.label == GUESS and not whole:
            raise LabelError("--label guess is for whole images; of these something is missing")
        given = self.images(bcm, paths, sample_shape or bcm.sample_shape)
        if self.label == GUESS:
            return given, self.guessed(bcm, given.images)
        if self.label is not None:
            return given, parse_labels(self.label, len(given.images), bcm)
        return given, stored_labels(given.labels, len(given.images), bcm)

    def guessed(self, bcm: BCM, images: np.ndarray) -> np.ndarray:
        """The labels that the model itself gives the images."""
        calls = DRAWS * (bcm.num_classes or 0)
        with move_progress(calls * -(-len(images) // bcm.batch), "guessing labels") as on_move:
            labels = bcm.guess_labels(images, seed=self.seed, on_move=on_move)
        words = [bcm.classes[label] if bcm.classes else str(label) for label in labels[:SHOWN]]
        progress(
            f"labels guessed with {calls} NFE each: {', '.join(words)}{', …' if len(labels) > SHOWN else ''}"
        )
        return labels

    def play(
        self,
        bcm: BCM,
        what: str,
        program: Schedule,
        n: int,
        work: Callable[[OnMove | None], T],
        calls: int | None = None,
    ) -> tuple[T, dict[str, Any]]:
        """What `work` returns, done under a progress bar, and the facts of the run. calls: if not those of the program, once per batch.

        Raises InputError, before anything is done, for more images than a picture can show.
        """
        if self.output.suffix and self.output.suffix.lower() != ".npz":
            channels, *sides = bcm.sample_shape
            copies = (
                4 * channels * max(CELL, *sides) ** 2
            )  # of an image's cell: enlarged, twice in the making of the grid, in Pillow
            check_memory(
                n * copies, f"a picture of {n} images", "make fewer, or write them to .npz or a folder"
            )
        with move_progress(program.nfe * -(-n // bcm.batch) if calls is None else calls, what) as on_move:
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
        """What is written beside the images: uint64 seeds (by default those that count on from --seed), int64 labels."""
        seeds = np.array(check_seeds(self.seed if seeds is None else seeds, n), np.uint64)
        return {"seeds": seeds, "labels": None if labels is None else np.asarray(labels, np.int64)}

    def save_beside(self, before: np.ndarray, after: np.ndarray, labels: Any, **given: np.ndarray) -> None:
        """Write results: in a picture below what they were made from, in an npz file with the arrays that were given, in a folder alone."""
        columns = min(len(after), int(np.ceil(np.sqrt(2 * len(after)))))
        pictured = self.output.suffix and self.output.suffix.lower() != ".npz"
        shown = pairs(before, after, columns) if pictured else after
        save_images(
            shown,
            self.output,
            self.force,
            columns,
            {**(given if self.output.suffix else {}), **self.per_image(len(after), labels)},
        )

    def report(self, bcm: BCM, facts: dict[str, Any], each: str = "each") -> None:
        """The run in a line, and the result. each: what the NFE are counted per."""
        progress(
            f"{counted(facts['images'], 'image')} in {facts['seconds']:.2f} s ({facts['schedule']}, {facts['nfe']} NFE {each}) "
            f"in {bcm.backend.precision} on {bcm.backend.name}: {bcm.backend.device}"
        )
        result(
            self.as_json,
            {**facts, "backend": bcm.backend.name, "precision": bcm.backend.precision},
            str(self.output),
        )


def run_options(
    output_help: str, label_help: str = LABELS
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options of `Run`, and the value itself as its argument `run`."""
    options = (
        click.option(
            "--seed",
            "given_seed",
            type=click.IntRange(0),
            help="Of the first image; the next ones count on (default: 0).",
        ),
        click.option("--label", metavar="LABELS", help=label_help),
        value_range_option,
        output_option(output_help),
        backend_option,
        precision_option,
        click.option(
            "--batch",
            type=click.IntRange(1),
            help=f"Most images per network call (default: {BATCH}; on an engine, what it takes).",
        ),
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


def stored_labels(labels: np.ndarray | None, n: int, bcm: BCM) -> np.ndarray | None:
    """int64 [n]: labels that came with images or latents, as the model numbers them; None without, or if the model has no classes.

    Raises LabelError for a class that the model does not have, and for another number of labels.
    """
    if labels is None or bcm.num_classes is None:
        return None
    return check_labels(np.atleast_1d(labels), n, bcm.num_classes, bcm.classes)


def pairs(originals: np.ndarray, reconstructions: np.ndarray, columns: int) -> np.ndarray:
    """Rows of originals, each above the row of their reconstructions, for a grid of so many columns."""
    white = np.ones((columns, *originals.shape[1:]), np.float32)
    rows = []
    for start in range(0, len(originals), columns):
        for images in (originals, reconstructions):
            row = images[start : start + columns]
            rows.append(np.concatenate([row, white[len(row) :]]))
    return np.concatenate(rows)
