"""bcm-edge inpaint, colorize, upscale: images of which a part is missing."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np

from ..errors import ImageError
from ..runtime.calls import OnMove
from ..runtime.pictures.images import ImageSet
from ..runtime.pictures.masks import read_holes
from ..runtime.pipeline import BCM
from ..runtime.schedule import Schedule
from ..runtime.tasks.constrained import COLOURING, UPSCALING, inpainting
from ..runtime.wording import counted
from .captions import by_class, class_texts, pairs_grid, title
from .console import note
from .options import bundle_argument
from .paths import PATH
from .run import GUESSABLE, Run, images_argument, run_options
from .schedules import completing, completion_option

OUTPUT = "The output: .png (a grid if there are several images), .npz, or a folder."
beside_option = click.option("--beside", is_flag=True, help="In a picture, show each input above its result.")


@click.command(
    short_help="Fill in the masked part of images.",
    epilog="Example:  bcm-edge inpaint digits 3.png --mask m.png --label 3 -o out",
)
@bundle_argument
@images_argument
@click.option(
    "--mask",
    type=PATH,
    help="A picture that is white where to fill in, or an npz file with `masks` (default: the transparent "
    "pixels of IMAGES).",
)
@completion_option(default_in_words=" (default: 8 network calls, at levels that depend on the image size)")
@beside_option
@run_options(OUTPUT, GUESSABLE)
def inpaint(
    bundle: Path, images: tuple[Path, ...], mask: Path | None, schedule: str | None, beside: bool, run: Run
) -> None:
    """Fill in the masked part of IMAGES (files, folders or one npz file).

    The mask is the white part of --mask, else the transparent part of the images, else the array `masks` of
    the npz file. All other pixels stay as they are.
    """
    with run.open(bundle) as bcm:
        holes = read_holes(mask, images, bcm.sample_shape)
        image_set, labels = run.read(bcm, images, holes=holes)
        program = completing(bcm, schedule) if schedule else inpainting(bcm.sample_shape)
        task = partial(bcm.inpaint, image_set.images, holes)
        results, facts = play(run, bcm, "filling in", program, image_set, labels, task)
        per_channel = holes if holes.ndim == 4 else holes[..., None, :, :]
        hole = np.broadcast_to(per_channel, image_set.images.shape)
        before = np.where(hole, np.float32(0), image_set.images)
        facts["filled"] = float(hole.mean())
        finish(run, bcm, image_set, before, results, labels, facts, beside)


@click.command(
    short_help="Give grey images colours.",
    epilog="Example:  bcm-edge colorize photos.bundle grey.png --label 3 -o coloured.png",
)
@bundle_argument
@images_argument
@completion_option(COLOURING)
@beside_option
@run_options(OUTPUT, GUESSABLE)
def colorize(bundle: Path, images: tuple[Path, ...], schedule: str, beside: bool, run: Run) -> None:
    """Give grey IMAGES (files, folders or one npz file) colours that the model finds likely.

    Their brightness stays as it is. Images in colour are converted to grey first. The model must be one of
    colour images.
    """
    with run.open(bundle) as bcm:
        channels, height, width = bcm.sample_shape
        if channels != 3:
            raise ImageError(
                f"{bundle}: colorize needs a model of colour images (3 channels); this one has {channels}"
            )
        image_set, labels = run.read(bcm, images, (1, height, width), grey=True)
        if image_set.to_grey:
            note(
                f"{counted(image_set.to_grey, 'image')} in colour: the brightness is kept, and the colours "
                "are replaced"
            )
        task = partial(bcm.colorize, image_set.images)
        results, facts = play(run, bcm, "colouring", completing(bcm, schedule), image_set, labels, task)
        before = np.repeat(image_set.images, 3, axis=1)
        finish(run, bcm, image_set, before, results, labels, facts, beside)


@click.command(
    short_help="Enlarge images to the model's size.",
    epilog="Example:  bcm-edge upscale digits small.png --label 3 -o large.png",
)
@bundle_argument
@images_argument
@click.option(
    "--factor",
    metavar="N",
    default=2,
    show_default=True,
    type=click.IntRange(2),
    help="How many times larger the result is. IMAGES are read in the model's size divided by N.",
)
@completion_option(UPSCALING)
@beside_option
@run_options(OUTPUT, GUESSABLE)
def upscale(
    bundle: Path, images: tuple[Path, ...], factor: int, schedule: str, beside: bool, run: Run
) -> None:
    """Enlarge IMAGES (files, folders or one npz file) to the model's size.

    Each of their pixels is the mean of a square of pixels of the result.
    """
    with run.open(bundle) as bcm:
        channels, height, width = bcm.sample_shape
        if height % factor or width % factor:
            raise ImageError(
                f"--factor {factor}: the model's size, {height}×{width} pixels, is not divisible "
                "by it; give a divisor of both sides"
            )
        small_shape = (channels, height // factor, width // factor)
        image_set, labels = run.read(bcm, images, small_shape, factor=factor)
        task = partial(bcm.upscale, image_set.images)
        results, facts = play(run, bcm, "enlarging", completing(bcm, schedule), image_set, labels, task)
        before = image_set.images.repeat(factor, axis=2).repeat(factor, axis=3)
        facts["factor"] = factor
        finish(run, bcm, image_set, before, results, labels, facts, beside)


def play(
    run: Run,
    bcm: BCM,
    title: str,
    program: Schedule,
    image_set: ImageSet,
    labels: Any,
    task: Callable[..., np.ndarray],
) -> tuple[np.ndarray, dict[str, Any]]:
    """Run a task of `bcm` on images, and return the results [N, C, H, W] and the facts of the run.

    title: the text of the progress bar. task: a method of `bcm` that has its images already.
    """

    def work(on_move: OnMove | None) -> np.ndarray:
        return task(schedule=program, seed=run.seed, labels=labels, on_move=on_move)

    return run.play(bcm, title, program, len(image_set.images), work)


def finish(
    run: Run,
    bcm: BCM,
    image_set: ImageSet,
    before: np.ndarray,
    after: np.ndarray,
    labels: Any,
    facts: dict[str, Any],
    beside: bool,
) -> None:
    """Write the results and print what was done.

    before: the inputs, in the shape of the results `after`. beside: whether a picture shows both.
    """
    arrays = {"given": image_set.images, **run.per_image(len(after), labels)}
    line, classes = title([facts["schedule"]], facts["nfe"]), class_texts(bcm, labels)
    grid = None
    if beside:
        grid = pairs_grid(before, after, classes, line)
    elif len(after) > 1:
        grid = by_class(after, classes, np.asarray(arrays["seeds"]).tolist(), line)
    run.save(bcm, after, facts, grid, **arrays)
    facts |= {"names": image_set.names, "labels": None if labels is None else np.asarray(labels).tolist()}
    run.report(bcm, facts)
