"""bcm-edge generate, invert, reconstruct: from a bundle to pictures and latents."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import click
import numpy as np

from ..errors import ImageError, LabelError
from ..runtime.chain import OnMove
from ..runtime.images import ImageSet, check_output, mean_squared_error, read_images, read_npz, save_images, save_npz
from ..runtime.pipeline import BATCH, BCM, load
from ..runtime.schedule import Schedule
from .console import (
    backend_option,
    bundle_argument,
    force_option,
    json_option,
    move_progress,
    note_engines,
    output_option,
    parse_labels,
    precision_option,
    progress,
    result,
    table,
)

images_argument = click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path))


@dataclass(frozen=True)
class Run:
    """The options that generate, invert and reconstruct share, and what they all do with them."""

    seed: int
    label: str | None
    output: Path
    backend: str
    precision: str | None
    batch: int | None
    force: bool
    as_json: bool

    def open(self, bundle: Path) -> BCM:
        """The model, once it is sure that the output can be written."""
        bcm = load(bundle, self.backend, self.batch, self.precision)
        if self.backend == "auto":
            note_engines(bcm.bundle, bcm.backend)
        check_output(self.output, bcm.sample_shape[0], self.force)
        return bcm

    def play(
        self, bcm: BCM, what: str, program: Schedule, n: int, work: Callable[[OnMove | None], np.ndarray]
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """What `work` returns, done under a progress bar, and the facts of the run."""
        with move_progress(program.nfe * -(-n // bcm.batch), what) as on_move:
            started = time.perf_counter()
            values = work(on_move)
            seconds = time.perf_counter() - started
        return values, {"output": str(self.output), "images": n, "schedule": str(program), "nfe": program.nfe, "seconds": seconds}

    def per_image(self, n: int, labels: Any) -> dict[str, np.ndarray | None]:
        """What is written beside the images: uint64 seeds, int64 labels."""
        seeds = np.array(range(self.seed, self.seed + n), np.uint64)
        return {"seeds": seeds, "labels": None if labels is None else np.asarray(labels, np.int64)}

    def report(self, bcm: BCM, facts: dict[str, Any]) -> None:
        progress(
            f"{facts['images']} images in {facts['seconds']:.2f} s ({facts['schedule']}, {facts['nfe']} NFE each) "
            f"in {bcm.backend.precision} on {bcm.backend.name}: {bcm.backend.device}"
        )
        result(self.as_json, {**facts, "backend": bcm.backend.name, "precision": bcm.backend.precision}, str(self.output))


def run_options(output_help: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options of `Run`, and the value itself as its argument `run`."""
    options = (
        click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Of the first image; the next ones count on."),
        click.option("--label", metavar="LABELS", help="Class labels: 3, or 0,1,2 taken in turn, or all."),
        output_option(output_help),
        backend_option,
        precision_option,
        click.option(
            "--batch", type=click.IntRange(1), help=f"Most images per network call (default: {BATCH}; on an engine, what it takes)."
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


@click.command(
    short_help="Images from noise, or from latents.",
    epilog="Example:  bcm-edge generate digits.bundle -n 16 --schedule mixture-4 --seed 0 --label 3 -o out.png",
)
@bundle_argument
@click.option("-n", "--number", type=click.IntRange(1), help="How many images (default 1, or one per latent).")
@click.option("--schedule", default="one-step", show_default=True, help="A schedule's name or text, as in '80>2.4>0.002'.")
@click.option("--latents", "latents_file", type=click.Path(path_type=Path), help="Start from the latents of an npz that invert wrote.")
@run_options("out.png (a grid if n > 1), out.npz, or a folder.")
def generate(bundle: Path, number: int | None, schedule: str, latents_file: Path | None, run: Run) -> None:
    """Generate images from noise, or from latents."""
    with run.open(bundle) as bcm:
        latents, labels = _read_latents(latents_file) if latents_file else (None, None)
        if latents is not None and number not in (None, len(latents)):
            raise ImageError(f"{latents_file} has {len(latents)} latents, but -n asks for {number} images")
        n = number or (1 if latents is None else len(latents))
        labels = parse_labels(run.label, n, bcm.num_classes) if run.label else labels
        program = bcm.bundle.schedule(schedule)
        images, facts = run.play(
            bcm,
            "generating",
            program,
            n,
            lambda on_move: bcm.generate(n, schedule=program, seed=run.seed, labels=labels, latents=latents, on_move=on_move),
        )
        save_images(images, run.output, run.force, arrays=run.per_image(n, labels))
        run.report(bcm, facts)


@click.command(short_help="Images to latents.", epilog="Example:  bcm-edge invert digits.bundle photos/ --label 3 -o latents.npz")
@bundle_argument
@images_argument
@click.option("--schedule", default="invert-2", show_default=True, help="An inversion's name or text, as in '+0.07 0.07>15>80'.")
@run_options("An npz file: latents, seeds, labels.")
def invert(bundle: Path, images: tuple[Path, ...], schedule: str, run: Run) -> None:
    """Invert IMAGES (files, folders, or one npz) to latents of unit variance, from which generate brings them back."""
    if run.output.suffix != ".npz":
        raise ImageError(f"{run.output}: latents are written as .npz")
    with run.open(bundle) as bcm:
        given, labels = _read_inputs(bcm, images, run.label)
        program, n = bcm.bundle.schedule(schedule), len(given.images)
        latents, facts = run.play(
            bcm,
            "inverting",
            program,
            n,
            lambda on_move: bcm.invert(given.images, schedule=program, seed=run.seed, labels=labels, on_move=on_move),
        )
        save_npz(run.output, {"latents": latents, **run.per_image(n, labels)}, run.force)
        progress(f"latents: standard deviation {latents.std():.3f}, mean {latents.mean():+.3f} (white noise has 1 and 0)")
        run.report(bcm, facts)


@click.command(
    short_help="Images to latents and back, with the error.",
    epilog="Example:  bcm-edge reconstruct digits.bundle photos/ --label 3 -o pairs.png",
)
@bundle_argument
@images_argument
@click.option("--inversion", default="invert-2", show_default=True, help="The schedule up to the noise.")
@click.option("--schedule", default="one-step", show_default=True, help="The schedule back to the image.")
@run_options("pairs.png (originals above reconstructions), out.npz, or a folder of reconstructions.")
def reconstruct(bundle: Path, images: tuple[Path, ...], inversion: str, schedule: str, run: Run) -> None:
    """Invert IMAGES and generate them again; shows pairs and the mean squared error (of uint8 pixels, in [0, 1])."""
    with run.open(bundle) as bcm:
        given, labels = _read_inputs(bcm, images, run.label)
        up, down, n = bcm.bundle.schedule(inversion), bcm.bundle.schedule(schedule), len(given.images)
        back, facts = run.play(
            bcm,
            "reconstructing",
            up + down,
            n,
            lambda on_move: bcm.reconstruct(given.images, inversion=up, schedule=down, seed=run.seed, labels=labels, on_move=on_move),
        )
        arrays = run.per_image(n, labels)
        if run.output.suffix == ".npz":
            save_images(back, run.output, run.force, arrays={"originals": given.images, **arrays})
        elif run.output.suffix:
            columns = int(np.ceil(np.sqrt(2 * n)))
            save_images(pairs(given.images, back, columns), run.output, run.force, columns)
        else:
            save_images(back, run.output, run.force, arrays=arrays)
        errors = mean_squared_error(given.images, back)
        if not run.as_json:
            rows = [(name, f"{error:.5f}") for name, error in zip(given.names, errors, strict=True)]
            click.echo(table(("image", "MSE"), [*rows, ("mean", f"{errors.mean():.5f}")]))
        run.report(bcm, {**facts, "mse": float(errors.mean()), "names": given.names, "mse_per_image": errors.tolist()})


def pairs(originals: np.ndarray, reconstructions: np.ndarray, columns: int) -> np.ndarray:
    """Rows of originals, each above the row of their reconstructions, for a grid of so many columns."""
    white = np.ones((columns, *originals.shape[1:]), np.float32)
    rows = []
    for start in range(0, len(originals), columns):
        for images in (originals, reconstructions):
            row = images[start : start + columns]
            rows.append(np.concatenate([row, white[len(row) :]]))
    return np.concatenate(rows)


def _read_inputs(bcm: BCM, paths: tuple[Path, ...], label: str | None) -> tuple[ImageSet, Any]:
    """The images, and their labels: from --label, else from the npz."""
    given = read_images(paths, bcm.sample_shape)
    classes = bcm.num_classes
    labels = parse_labels(label, len(given.images), classes) if label else given.labels
    if labels is not None and classes is None:
        if label:
            raise LabelError("this model has no classes, so it takes no labels")
        labels = None  # an npz may carry labels that this model has no use for
    return given, labels


def _read_latents(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    arrays = read_npz(path)
    if "latents" not in arrays:
        raise ImageError(f"{path}: has no array `latents` (it has {', '.join(arrays) or 'none'})")
    return np.atleast_1d(arrays["latents"]), arrays.get("labels")  # a lone number is refused by its shape
