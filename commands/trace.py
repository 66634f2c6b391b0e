"""bcm-edge trace: every state of a schedule, as a picture or as arrays."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

from ..errors import OutputError
from ..runtime.arguments import check_number
from ..runtime.calls import OnMove
from ..runtime.classes import refuse_guess
from ..runtime.pictures.grids import Grid
from ..runtime.pictures.writing import heat
from ..runtime.pipeline import BCM
from ..runtime.storage.arrays import save_npz
from ..runtime.tasks.trace import Trace
from ..runtime.tasks.trace import program as trace_program
from .captions import class_texts, title
from .options import bundle_argument, parse_labels
from .paths import PATH
from .run import GUESSABLE, Run, run_options
from .schedules import inversion_option, schedule_option


@click.command(
    short_help="Show every state between noise and image.",
    epilog="Example:  bcm-edge trace digits three.png --label 3 -o strip.png",
)
@bundle_argument
@click.argument("images", nargs=-1, type=PATH)
@inversion_option
@schedule_option
@click.option(
    "-n",
    "--number",
    "--num-images",
    "number",
    metavar="N",
    type=click.IntRange(1),
    help="Number of images to generate, if no IMAGES are given (default: 1).",
)
@run_options("The output: .png (a row per image), or .npz with states and levels.", GUESSABLE)
def trace(
    bundle: Path, images: tuple[Path, ...], inversion: str, schedule: str, number: int | None, run: Run
) -> None:
    """Show every state of a schedule, a row per image.

    Without IMAGES it is a generation; with IMAGES (files, folders or one npz file) their inversion and
    reconstruction, or a --schedule from an image to an image, as `restore` plays it. States are scaled to the
    contrast of an image. For given images, the last column shows the error of the result: from black (no
    error) over red and yellow to white (half the pixel range or more).
    """
    if images and number is not None:
        raise click.UsageError("-n cannot be combined with IMAGES; leave out one of them")
    if not run.output.suffix:
        raise OutputError(f"{run.output}: a trace cannot be written to a folder; give a .png or .npz file")
    with run.open(bundle) as bcm:
        if images:
            _trace_images(bcm, images, inversion, schedule, run)
        else:
            _trace_noise(bcm, schedule, number or 1, run)


def _trace_noise(bcm: BCM, schedule: str, n: int, run: Run) -> None:
    refuse_guess(run.label)
    program = trace_program(bcm.schedule(schedule), None)
    check_number(n * (program.nfe + 1), bcm.sample_shape, "states")
    seeds = list(range(run.seed, run.seed + n))
    labels = parse_labels(run.label, n, bcm)

    def work(on_move: OnMove | None) -> Trace:
        return bcm.trace(program, seed=seeds, labels=labels, on_move=on_move)

    states, facts = run.play(bcm, "tracing", program, n, work)
    line = title([schedule], program.nfe)
    _save_trace(bcm, states, states.pictures(), _levels(states), line, labels, run, facts)


def _trace_images(bcm: BCM, images: tuple[Path, ...], inversion: str, schedule: str, run: Run) -> None:
    image_set, labels = run.read(bcm, images)
    originals = image_set.images
    down = bcm.schedule(schedule)
    program = trace_program(down, bcm.schedule(inversion))

    def work(on_move: OnMove | None) -> Trace:
        return bcm.trace(program, images=originals, seed=run.seed, labels=labels, on_move=on_move)

    states, facts = run.play(bcm, "tracing", program, len(originals), work)
    reconstructions = np.clip(states.states[-1], -1, 1)
    error = np.abs(reconstructions - originals).max(axis=1, keepdims=True)
    strip = None
    if run.output.suffix.lower() != ".npz":  # arrays may have any number of channels, pictures 1 or 3
        columns = np.concatenate([originals[None], states.pictures()])
        strip = np.concatenate([_rgb(columns), heat(error)[None]])
    facts |= {"largest_error": error.max(axis=(1, 2, 3)).tolist(), "names": image_set.names}
    line = title([schedule] if down.from_image else [inversion, schedule], program.nfe)
    _save_trace(bcm, states, strip, ["input", *_levels(states), "error"], line, labels, run, facts)


def _save_trace(
    bcm: BCM,
    states: Trace,
    strip: np.ndarray | None,
    headings: Sequence[str],
    line: str,
    labels: Any,
    run: Run,
    facts: dict[str, Any],
) -> None:
    """Write a trace.

    strip: float [columns, N, C, H, W], the picture; None where arrays are written.
    headings: one label per column. line: the title of the picture. labels: the classes of the N images.
    """
    if strip is None or run.output.suffix.lower() == ".npz":
        save_npz(run.output, {"states": states.states, "levels": np.array(states.levels)}, run.force)
    else:
        grid = Grid(list(strip.swapaxes(0, 1)), line, class_texts(bcm, labels), headings)
        run.save(bcm, strip[-1], facts, grid, **run.per_image(strip.shape[1], labels))
    run.report(bcm, {**facts, "levels": states.levels})


def _levels(states: Trace) -> list[str]:
    """Return the labels of columns of states: their noise levels."""
    return [f"level {level:g}" for level in states.levels]


def _rgb(images: np.ndarray) -> np.ndarray:
    """Return images [..., 1 or 3, H, W] with three channels, [..., 3, H, W]."""
    return np.broadcast_to(images, (*images.shape[:-3], 3, *images.shape[-2:]))
