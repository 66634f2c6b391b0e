"""bcm-edge generate, invert, reconstruct: from a bundle to pictures and latents."""

from __future__ import annotations

import sys
from pathlib import Path

import click
import numpy as np

from ..errors import ImageError
from ..runtime.arguments import check_number
from ..runtime.classes import named_labels, refuse_guess
from ..runtime.pictures.writing import save_images
from ..runtime.pixels import mean_squared_error
from ..runtime.storage.arrays import read_arrays, required, save_npz
from ..runtime.wording import printable
from .console import bundle_argument, parse_labels, progress, table
from .paths import PATH
from .run import (
    GUESSABLE,
    Run,
    images_argument,
    inversion_option,
    run_options,
    schedule_option,
    stored_labels,
)


@click.command(
    short_help="Images from noise, or from latents.",
    epilog="Example:  bcm-edge generate digits.bundle -n 16 --schedule mixture-4 --seed 0 --label 3 -o out.png",
)
@bundle_argument
@click.option(
    "-n", "--number", type=click.IntRange(1), help="How many images (default 1, or one per latent)."
)
@schedule_option
@click.option(
    "--latents", "latents_file", type=PATH, help="Start from the latents of an npz that invert wrote."
)
@run_options("out.png (a grid if n > 1), out.npz, or a folder.")
def generate(bundle: Path, number: int | None, schedule: str, latents_file: Path | None, run: Run) -> None:
    """Generate images from noise, or from latents."""
    with run.open(bundle) as bcm:
        latents, labels, seeds = _read_latents(latents_file) if latents_file else (None, None, None)
        if latents is not None and number not in (None, len(latents)):
            raise ImageError(f"{latents_file} has {len(latents)} latents, but -n asks for {number} images")
        n = number or (1 if latents is None else len(latents))
        check_number(n, bcm.sample_shape)
        seed = run.seed if seeds is None or run.given_seed is not None else seeds
        refuse_guess(run.label)
        labels = parse_labels(run.label, n, bcm) if run.label is not None else stored_labels(labels, n, bcm)
        program = bcm.bundle.schedule(schedule)
        images, facts = run.play(
            bcm,
            "generating",
            program,
            n,
            lambda on_move: bcm.generate(
                n, schedule=program, seed=seed, labels=labels, latents=latents, on_move=on_move
            ),
        )
        save_images(images, run.output, run.force, arrays=run.per_image(n, labels, seed))
        run.report(bcm, facts)


@click.command(
    short_help="Images to latents.",
    epilog="Example:  bcm-edge invert digits.bundle photos/ --label 3 -o latents.npz",
)
@bundle_argument
@images_argument
@click.option(
    "--schedule",
    default="invert-2",
    show_default=True,
    help="An inversion's name or text, as in '+0.07 0.07>15>80'.",
)
@run_options("An npz file: latents, seeds, labels.", GUESSABLE)
def invert(bundle: Path, images: tuple[Path, ...], schedule: str, run: Run) -> None:
    """Invert IMAGES (files, folders, or one npz) to latents of unit variance, from which generate brings them back."""
    if run.output.suffix.lower() != ".npz":
        raise ImageError(f"{run.output}: latents are written as .npz")
    with run.open(bundle) as bcm:
        given, labels = run.read(bcm, images)
        program, n = bcm.bundle.schedule(schedule), len(given.images)
        latents, facts = run.play(
            bcm,
            "inverting",
            program,
            n,
            lambda on_move: bcm.invert(
                given.images, schedule=program, seed=run.seed, labels=labels, on_move=on_move
            ),
        )
        save_npz(run.output, {"latents": latents, **run.per_image(n, labels)}, run.force)
        progress(
            f"latents: standard deviation {latents.std():.3f}, mean {latents.mean():+.3f} (white noise has 1 and 0)"
        )
        run.report(bcm, facts)


@click.command(
    short_help="Images to latents and back, with the error.",
    epilog="Example:  bcm-edge reconstruct digits.bundle photos/ --label 3 -o pairs.png",
)
@bundle_argument
@images_argument
@inversion_option
@schedule_option
@run_options(
    "pairs.png (originals above reconstructions), out.npz, or a folder of reconstructions.", GUESSABLE
)
def reconstruct(bundle: Path, images: tuple[Path, ...], inversion: str, schedule: str, run: Run) -> None:
    """Invert IMAGES and generate them again; shows pairs and the mean squared error (of uint8 pixels, in [0, 1])."""
    with run.open(bundle) as bcm:
        given, labels = run.read(bcm, images)
        up, down, n = bcm.bundle.schedule(inversion), bcm.bundle.schedule(schedule), len(given.images)
        back, facts = run.play(
            bcm,
            "reconstructing",
            up + down,
            n,
            lambda on_move: bcm.reconstruct(
                given.images, inversion=up, schedule=down, seed=run.seed, labels=labels, on_move=on_move
            ),
        )
        run.save_beside(given.images, back, labels, originals=given.images)
        errors = mean_squared_error(given.images, back)
        if not run.as_json:
            rows = [
                (printable(name), f"{error:.5f}") for name, error in zip(given.names, errors, strict=True)
            ]
            click.echo(table(("image", "MSE"), [*rows, ("mean", f"{errors.mean():.5f}")]), file=sys.stdout)
        run.report(
            bcm,
            {**facts, "mse": float(errors.mean()), "names": given.names, "mse_per_image": errors.tolist()},
        )


def _read_latents(path: Path) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
    """Latents, and labels and seeds where the file has them."""
    arrays = read_arrays(path, "latents")
    latents = np.atleast_1d(required(arrays, "latents", path))  # a lone number is refused by its shape
    labels, seeds = named_labels(arrays, str(path)), arrays.get("seeds")
    for name, values in (("labels", labels), ("seeds", seeds)):
        if values is not None and values.shape != (len(latents),):
            raise ImageError(
                f"{path}: {name} has shape {list(values.shape)}, but there are {len(latents)} latents"
            )
    return latents, labels, seeds
