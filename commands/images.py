"""bcm-edge generate, invert, reconstruct: from a bundle to images and latents."""

from __future__ import annotations

import sys
from pathlib import Path

import click
import numpy as np

from ..errors import ImageError
from ..runtime.arguments import check_latents, check_number
from ..runtime.calls import OnMove
from ..runtime.classes import named_labels, refuse_guess
from ..runtime.pixels import mean_squared_error
from ..runtime.storage.arrays import read_arrays, required, save_npz
from ..runtime.wording import counted, printable
from .captions import by_class, class_texts, pairs_grid, title
from .console import progress
from .far_latents import Inverted, note_latents
from .options import bundle_argument, parse_labels, refused_option
from .paths import PATH
from .run import GUESSABLE, Run, images_argument, run_options, stored_labels
from .schedules import inversion_option, schedule_option, to_image, to_noise
from .tables import table


@click.command(
    short_help="Generate images from noise, or from latents.",
    epilog="Example:  bcm-edge generate digits -n 16 --label 3 -o digits.png",
)
@bundle_argument
@click.option(
    "-n",
    "--number",
    "--num-images",
    "number",
    metavar="N",
    type=click.IntRange(1),
    help="Number of images (default: 1; with --latents, one per latent).",
)
@schedule_option
@refused_option("--inversion", "generate ends at an image; give the schedule to the image with --schedule")
@click.option(
    "--latents",
    "latents_file",
    type=PATH,
    help="Start from the latents in an npz file that `invert` wrote, instead of from noise.",
)
@run_options("The output: .png (a grid if N > 1), .npz, or a folder.")
def generate(bundle: Path, number: int | None, schedule: str, latents_file: Path | None, run: Run) -> None:
    """Generate images from noise, or from latents."""
    with run.open(bundle) as bcm:
        latents, labels, seeds = _read_latents(latents_file) if latents_file else (None, None, None)
        if latents is not None and number not in (None, len(latents)):
            there = counted(len(latents), "latent")
            raise ImageError(f"-n {number} does not fit {latents_file}, which has {there}; leave out -n")
        n = number or (1 if latents is None else len(latents))
        check_number(n, bcm.sample_shape)
        if latents is not None:
            latents = check_latents(latents, bcm.sample_shape)
            advice = "images from them may be unlike the training data"
            note_latents(latents, [str(index) for index in range(n)], advice)
        seed = run.seed if seeds is None or run.given_seed is not None else seeds
        refuse_guess(run.label)
        if run.label is not None:
            labels = parse_labels(run.label, n, bcm)
        else:
            labels = stored_labels(labels, n, bcm, latents_file or "")
        program = to_image(bcm, schedule)

        def work(on_move: OnMove | None) -> np.ndarray:
            return bcm.generate(
                n, schedule=program, seed=seed, labels=labels, latents=latents, on_move=on_move
            )

        images, facts = run.play(bcm, "generating", program, n, work)
        arrays = run.per_image(n, labels, seed)
        line = title([schedule], program.nfe)
        shown_seeds = (
            np.asarray(arrays["seeds"]).tolist() if latents is None else []
        )  # latents replace the noise
        grid = by_class(images, class_texts(bcm, labels), shown_seeds, line)
        run.save(bcm, images, facts, grid if n > 1 else None, **arrays)
        run.report(bcm, facts)


@click.command(
    short_help="Invert images to latents.",
    epilog="Example:  bcm-edge invert digits photos/ --label 3 -o latents.npz",
)
@bundle_argument
@images_argument
@inversion_option
@refused_option("--schedule", "invert ends at noise; give the schedule to noise with --inversion")
@run_options("The npz file to write: latents, seeds and labels.", GUESSABLE)
def invert(bundle: Path, images: tuple[Path, ...], inversion: str, run: Run) -> None:
    """Invert IMAGES (files, folders or one npz file) to latents of unit variance.

    `generate --latents` makes the images again.
    """
    if run.output.suffix.lower() != ".npz":
        raise ImageError(f"{run.output}: latents are written to .npz files; give an output that ends in .npz")
    with run.open(bundle) as bcm:
        image_set, labels = run.read(bcm, images)
        program, n = to_noise(bcm, inversion), len(image_set.images)

        def work(on_move: OnMove | None) -> np.ndarray:
            return bcm.invert(
                image_set.images, inversion=program, seed=run.seed, labels=labels, on_move=on_move
            )

        latents, facts = run.play(bcm, "inverting", program, n, work)
        advice = (
            "the label may be wrong, the image unlike the training data, or the levels of --inversion "
            "unsuitable; try --label guess, or --inversion invert-2"
        )
        far = note_latents(latents, image_set.names, advice)
        save_npz(run.output, {"latents": latents, **run.per_image(n, labels)}, run.force)
        measured = f"standard deviation {latents.std():.3f}, mean {latents.mean():+.3f}"
        progress(f"latents: {measured} (white noise has 1 and 0)")
        run.report(bcm, {**facts, "far_from_noise": far})


@click.command(
    short_help="Invert images, generate them again, and measure the error.",
    epilog="Example:  bcm-edge reconstruct digits photos/ --label 3 -o pairs.png",
)
@bundle_argument
@images_argument
@inversion_option
@schedule_option
@run_options(
    "The output: .png (each image above its reconstruction), .npz, or a folder of reconstructions.", GUESSABLE
)
def reconstruct(bundle: Path, images: tuple[Path, ...], inversion: str, schedule: str, run: Run) -> None:
    """Invert IMAGES (files, folders or one npz file), generate them again, and print the error.

    The error of an image is the mean squared error of its uint8 pixels, in units of the pixel range
    (0 to 1).
    """
    with run.open(bundle) as bcm:
        image_set, labels = run.read(bcm, images)
        originals, names = image_set.images, image_set.names
        up, down = to_noise(bcm, inversion), to_image(bcm, schedule)
        inverted = Inverted(names, up.nfe, (up + down).nfe)

        def work(on_move: OnMove | None) -> np.ndarray:
            return bcm.reconstruct(
                originals,
                inversion=up,
                schedule=down,
                seed=run.seed,
                labels=labels,
                on_move=inverted.watching(on_move),
            )

        reconstructions, facts = run.play(bcm, "reconstructing", up + down, len(originals), work)
        errors = mean_squared_error(originals, reconstructions)
        grid = pairs_grid(
            originals,
            reconstructions,
            [f"MSE {error:.4f}" for error in errors],
            title([inversion, schedule], (up + down).nfe),
        )
        arrays = {"originals": originals, **run.per_image(len(originals), labels)}
        run.save(bcm, reconstructions, facts, grid, **arrays)
        far = inverted.note()
        mean = float(errors.mean())
        if not run.as_json:
            rows = [(printable(name), f"{error:.5f}") for name, error in zip(names, errors, strict=True)]
            click.echo(table(("image", "MSE"), [*rows, ("mean", f"{mean:.5f}")]), file=sys.stdout)
        measured = {"mse": mean, "names": names, "mse_per_image": errors.tolist(), "far_from_noise": far}
        run.report(bcm, {**facts, **measured})


def _read_latents(path: Path) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
    """Return the latents of an npz file, and its labels and seeds, None where the file has none."""
    arrays = read_arrays(path, "latents")
    latents = required(arrays, "latents", path, "; give a file that invert wrote")
    latents = np.atleast_1d(latents)  # the check of shapes refuses a single number
    labels, seeds = named_labels(arrays, str(path)), arrays.get("seeds")
    for name, values in (("labels", labels), ("seeds", seeds)):
        if values is not None and values.shape != (len(latents),):
            raise ImageError(
                f"{path}: {name} has shape {list(values.shape)}, expected [{len(latents)}], one per latent"
            )
    return latents, labels, seeds
