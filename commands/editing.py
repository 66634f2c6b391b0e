"""bcm-edge inpaint, colorize, upscale, restore, purify: images of which something is missing, or to which something was done."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np

from ..errors import ImageError
from ..runtime.classes import GUESS
from ..runtime.pictures.images import ImageSet
from ..runtime.pictures.masks import read_holes
from ..runtime.pictures.writing import save_images
from ..runtime.pipeline import BCM
from ..runtime.schedule import Schedule
from ..runtime.tasks.constrained import COLOURING, UPSCALING, inpainting
from ..runtime.tasks.restoration import restoration
from .console import bundle_argument
from .paths import PATH
from .run import GUESSABLE, Run, images_argument, run_options

OUTPUT = "out.png (a grid if there are several), out.npz, or a folder."
beside_option = click.option(
    "--beside", is_flag=True, help="In a picture, show what was given above what came out."
)


def _filling_option(default: Schedule | None = None, said: str = "") -> Callable[..., Any]:
    """said: the default in words, where there is no one schedule."""
    text = f"From noise, back to the image as often as you like{said}."
    return click.option(
        "--schedule", default=default and str(default), show_default=default is not None, help=text
    )


@click.command(
    short_help="Fill in the masked part of images.",
    epilog="Example:  bcm-edge inpaint digits.bundle three.png --mask hole.png --label 3 -o filled.png",
)
@bundle_argument
@images_argument
@click.option(
    "--mask", type=PATH, help="White where to fill: a picture, or npz with `masks` (default: transparency)."
)
@_filling_option(said=" (default: 8 calls, with levels that follow the size of the images)")
@beside_option
@run_options(OUTPUT)
def inpaint(
    bundle: Path, images: tuple[Path, ...], mask: Path | None, schedule: str | None, beside: bool, run: Run
) -> None:
    """Fill in the holes of IMAGES (files, folders, or one npz); every other pixel stays as it is.

    The holes are white in --mask, or transparent in the images themselves, or the array `masks` of the npz.
    """
    with run.open(bundle) as bcm:
        given, labels = run.read(bcm, images, whole=False)
        holes = read_holes(mask, images, bcm.sample_shape)
        program = bcm.schedule(schedule) if schedule else inpainting(bcm.sample_shape)
        back, facts = _play(
            run, bcm, "filling in", program, given, labels, partial(bcm.inpaint, given.images, holes)
        )
        hole = np.broadcast_to(holes if holes.ndim == 4 else holes[..., None, :, :], given.images.shape)
        _finish(
            run,
            bcm,
            given,
            np.where(hole, np.float32(0), given.images),
            back,
            labels,
            {**facts, "filled": float(hole.mean())},
            beside,
        )


@click.command(
    short_help="Grey images in colour.",
    epilog="Example:  bcm-edge colorize photos.bundle grey.png --label 3 -o coloured.png",
)
@bundle_argument
@images_argument
@_filling_option(COLOURING)
@beside_option
@run_options(OUTPUT)
def colorize(bundle: Path, images: tuple[Path, ...], schedule: str, beside: bool, run: Run) -> None:
    """Give grey IMAGES (files, folders, or one npz) colours that a model of colour images finds likely; their brightness stays."""
    with run.open(bundle) as bcm:
        channels, height, width = bcm.sample_shape
        if channels != 3:
            raise ImageError(
                f"colours take a model of 3 channels; this one has {channels}, so it knows no colours"
            )
        given, labels = run.read(bcm, images, (1, height, width), whole=False)
        back, facts = _play(
            run, bcm, "colouring", bcm.schedule(schedule), given, labels, partial(bcm.colorize, given.images)
        )
        _finish(run, bcm, given, np.repeat(given.images, 3, axis=1), back, labels, facts, beside)


@click.command(
    short_help="Small images in the model's size.",
    epilog="Example:  bcm-edge upscale digits.bundle small.png --factor 2 --label 3 -o large.png",
)
@bundle_argument
@images_argument
@click.option(
    "--factor",
    default=2,
    show_default=True,
    type=click.IntRange(2),
    help="How many times larger: the model's size over it is read.",
)
@_filling_option(UPSCALING)
@beside_option
@run_options(OUTPUT)
def upscale(
    bundle: Path, images: tuple[Path, ...], factor: int, schedule: str, beside: bool, run: Run
) -> None:
    """Enlarge IMAGES (files, folders, or one npz) to the model's size; their pixels are the means of the result's squares."""
    with run.open(bundle) as bcm:
        channels, height, width = bcm.sample_shape
        if height % factor or width % factor:
            raise ImageError(f"--factor {factor}: the model's {height}×{width} pixels do not divide by it")
        given, labels = run.read(bcm, images, (channels, height // factor, width // factor), whole=False)
        back, facts = _play(
            run, bcm, "enlarging", bcm.schedule(schedule), given, labels, partial(bcm.upscale, given.images)
        )
        enlarged = given.images.repeat(factor, axis=2).repeat(factor, axis=3)
        _finish(run, bcm, given, enlarged, back, labels, {**facts, "factor": factor}, beside)


_strength_option = click.option(
    "--strength",
    default=0.2,
    show_default=True,
    help="The noise level below which all is taken for damage; ignored with --schedule.",
)
_program_option = click.option(
    "--schedule", help="Another program from an image to an image (default: '+S S>5>0.002', S the strength)."
)


@click.command(
    short_help="Repair compressed, blurred or noisy images.",
    epilog="Example:  bcm-edge restore digits.bundle damaged.jpg --label guess -o repaired.png",
)
@bundle_argument
@images_argument
@_strength_option
@_program_option
@beside_option
@run_options(OUTPUT, GUESSABLE)
def restore(
    bundle: Path, images: tuple[Path, ...], strength: float, schedule: str | None, beside: bool, run: Run
) -> None:
    """Restore IMAGES (files, folders, or one npz) without knowing what was done to them."""
    with run.open(bundle) as bcm:
        _restore(run, bcm, images, strength, schedule, "restoring", beside)


@click.command(
    short_help="Undo an attack on a classifier.",
    epilog="Example:  bcm-edge purify digits.bundle attacked/ -o clean/",
)
@bundle_argument
@images_argument
@_strength_option
@_program_option
@beside_option
@run_options(OUTPUT, GUESSABLE)
def purify(
    bundle: Path, images: tuple[Path, ...], strength: float, schedule: str | None, beside: bool, run: Run
) -> None:
    """Remove small changes made to IMAGES (files, folders, or one npz) to mislead a classifier, before the classifier sees them.

    As restore does, but labels are guessed unless --label gives them: those that come with attacked images are not to be trusted.
    """
    with run.open(bundle) as bcm:
        trusted = run if run.label is not None or bcm.num_classes is None else replace(run, label=GUESS)
        _restore(trusted, bcm, images, strength, schedule, "purifying", beside)


def _restore(
    run: Run,
    bcm: BCM,
    images: tuple[Path, ...],
    strength: float,
    schedule: str | None,
    what: str,
    beside: bool,
) -> None:
    program = bcm.schedule(schedule) if schedule else restoration(strength)
    given, labels = run.read(bcm, images)
    back, facts = _play(run, bcm, what, program, given, labels, partial(bcm.restore, given.images))
    _finish(run, bcm, given, given.images, back, labels, facts, beside)


def _play(
    run: Run,
    bcm: BCM,
    what: str,
    program: Schedule,
    given: ImageSet,
    labels: Any,
    task: Callable[..., np.ndarray],
) -> tuple[np.ndarray, dict[str, Any]]:
    """Run.play of a task that has its images."""
    return run.play(
        bcm,
        what,
        program,
        len(given.images),
        lambda on_move: task(schedule=program, seed=run.seed, labels=labels, on_move=on_move),
    )


def _finish(
    run: Run,
    bcm: BCM,
    given: ImageSet,
    before: np.ndarray,
    after: np.ndarray,
    labels: Any,
    facts: dict[str, Any],
    beside: bool,
) -> None:
    """Write the results and report. before: what was given, in the shape of the results."""
    if beside:
        run.save_beside(before, after, labels, given=given.images)
    else:
        save_images(
            after,
            run.output,
            run.force,
            arrays={
                **({"given": given.images} if run.output.suffix else {}),
                **run.per_image(len(after), labels),
            },
        )
    run.report(
        bcm,
        {**facts, "names": given.names, "labels": None if labels is None else np.asarray(labels).tolist()},
    )
