"""bcm-edge interpolate, variations, trace: what lies between latents, near one, and on the way to one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

from ..errors import LabelError, OutputError
from ..runtime.arguments import check_number
from ..runtime.classes import ALL, GUESS, labels_of, refuse_guess
from ..runtime.pictures.animation import FORMATS, save_animation
from ..runtime.pictures.images import ImageSet
from ..runtime.pictures.writing import heat, save_images
from ..runtime.pipeline import BCM
from ..runtime.storage.arrays import save_npz
from ..runtime.tasks.trace import Trace
from .console import bundle_argument, parse_labels
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
    short_help="From one image to another, through the latents.",
    epilog="Example:  bcm-edge interpolate digits.bundle three.png five.png --label 3,5 -o way.gif",
)
@bundle_argument
@click.argument("a", type=PATH)
@click.argument("b", type=PATH)
@click.option(
    "--frames",
    default=9,
    show_default=True,
    type=click.IntRange(2),
    help="Images per pair, both ends among them.",
)
@inversion_option
@schedule_option
@run_options(
    "way.gif or way.apng, strip.png (a row per pair), out.npz, or a folder.",
    "Class labels: 3 of both, 3,5 of A and B, or guess. Names do as well.",
)
def interpolate(bundle: Path, a: Path, b: Path, frames: int, inversion: str, schedule: str, run: Run) -> None:
    """Invert A and B (files, folders, or npz with as many images each), and generate from FRAMES latents on the great circle between.

    The ends are the reconstructions of A and B. Where their labels differ, the first half is generated under A's, the rest under B's.
    """
    with run.open(bundle, tuple(FORMATS)) as bcm:
        pairs = [run.images(bcm, [path], bcm.sample_shape) for path in (a, b)]
        labels = _pair_labels(run, bcm, pairs)
        up, down, n = bcm.schedule(inversion), bcm.schedule(schedule), len(pairs[0].images)
        images, facts = run.play(
            bcm,
            "interpolating",
            up + down,
            n * frames,
            lambda on_move: bcm.interpolate(
                pairs[0].images,
                pairs[1].images,
                frames=frames,
                inversion=up,
                schedule=down,
                seed=run.seed,
                labels=labels[0],
                labels_b=labels[1],
                on_move=on_move,
            ),
            calls=2 * up.nfe * -(-n // bcm.batch) + down.nfe * -(-n * frames // bcm.batch),
        )
        if run.output.suffix.lower() in FORMATS:
            save_animation(images.swapaxes(0, 1), run.output, run.force)
        else:
            shown = (
                None
                if labels[0] is None
                else np.where(
                    np.linspace(0, 1, frames) < 0.5, *(np.asarray(of)[:, None] for of in labels)
                ).ravel()
            )
            save_images(
                images.reshape(-1, *bcm.sample_shape), run.output, run.force, frames, {"labels": shown}
            )
        run.report(bcm, {**facts, "pairs": n, "nfe": 2 * up.nfe + frames * down.nfe}, "per pair")


@click.command(
    short_help="Images near a given one.",
    epilog="Example:  bcm-edge variations digits.bundle three.png --label 3 -n 8 -o near.png",
)
@bundle_argument
@images_argument
@click.option(
    "-n", "--number", default=4, show_default=True, type=click.IntRange(1), help="How many per image."
)
@click.option(
    "--strength",
    default=0.3,
    show_default=True,
    type=click.FloatRange(0, 1),
    help="How far latents turn to fresh noise: 0 reconstructs, 1 is unrelated.",
)
@inversion_option
@schedule_option
@run_options(
    "near.png (a row per image, which comes first), out.npz, or a folder of the variations.", GUESSABLE
)
def variations(
    bundle: Path,
    images: tuple[Path, ...],
    number: int,
    strength: float,
    inversion: str,
    schedule: str,
    run: Run,
) -> None:
    """Invert IMAGES (files, folders, or one npz), step away from their latents, and generate."""
    with run.open(bundle) as bcm:
        given, labels = run.read(bcm, images)
        up, down, n = bcm.schedule(inversion), bcm.schedule(schedule), len(given.images)
        found, facts = run.play(
            bcm,
            "varying",
            up + down,
            n * number,
            lambda on_move: bcm.variations(
                given.images,
                number,
                strength=strength,
                inversion=up,
                schedule=down,
                seed=run.seed,
                labels=labels,
                on_move=on_move,
            ),
            calls=up.nfe * -(-n // bcm.batch) + down.nfe * -(-n * number // bcm.batch),
        )
        if run.output.suffix and run.output.suffix.lower() != ".npz":
            found, columns = np.concatenate([given.images[:, None], found], axis=1), number + 1
        else:
            columns = number
        repeated = None if labels is None else np.repeat(np.asarray(labels, np.int64), columns)
        save_images(
            found.reshape(-1, *bcm.sample_shape), run.output, run.force, columns, {"labels": repeated}
        )
        run.report(bcm, {**facts, "strength": strength, "nfe": up.nfe + number * down.nfe}, "per given image")


@click.command(
    short_help="The states on the way, as a filmstrip.",
    epilog="Example:  bcm-edge trace digits.bundle three.png --label 3 -o strip.png",
)
@bundle_argument
@click.argument("images", nargs=-1, type=PATH)
@inversion_option
@schedule_option
@click.option(
    "-n", "--number", type=click.IntRange(1), help="How many, where no images are given (default 1)."
)
@run_options("strip.png, or out.npz with states and levels.", GUESSABLE)
def trace(
    bundle: Path, images: tuple[Path, ...], inversion: str, schedule: str, number: int | None, run: Run
) -> None:
    """Show every state of a schedule, a row per image: of a generation, or, given IMAGES, of their inversion and reconstruction.

    The states are scaled to the contrast of an image. Behind those of given images stands where the reconstruction errs: from black
    (right) over red and yellow to white (off by half the range or more).
    """
    if images and number is not None:
        raise click.UsageError("-n is for traces of noise; the images say how many there are")
    if not run.output.suffix:
        raise OutputError(f"{run.output}: a trace is written as a picture, or .npz")
    with run.open(bundle) as bcm:
        _trace_images(bcm, images, inversion, schedule, run) if images else _trace_noise(
            bcm, schedule, number or 1, run
        )


def _trace_noise(bcm: BCM, schedule: str, n: int, run: Run) -> None:
    refuse_guess(run.label)
    program = bcm.schedule(schedule)
    check_number(n * (program.nfe + 1), bcm.sample_shape, "states")
    seeds = list(range(run.seed, run.seed + n))
    labels = parse_labels(run.label, n, bcm)
    found, facts = run.play(
        bcm,
        "tracing",
        program,
        n,
        lambda on_move: bcm.trace(program, seed=seeds, labels=labels, on_move=on_move),
    )
    _save_trace(bcm, found, found.pictures(), run, facts)


def _trace_images(bcm: BCM, images: tuple[Path, ...], inversion: str, schedule: str, run: Run) -> None:
    given, labels = run.read(bcm, images)
    program = bcm.schedule(inversion) + bcm.schedule(schedule)
    found, facts = run.play(
        bcm,
        "tracing",
        program,
        len(given.images),
        lambda on_move: bcm.trace(
            program, images=given.images, seed=run.seed, labels=labels, on_move=on_move
        ),
    )
    error = np.abs(np.clip(found.states[-1], -1, 1) - given.images).max(axis=1, keepdims=True)
    strip = None
    if run.output.suffix.lower() != ".npz":  # which has models of other channels, too
        strip = np.concatenate(
            [_rgb(np.concatenate([given.images[None], found.pictures()])), heat(error)[None]]
        )
    _save_trace(
        bcm,
        found,
        strip,
        run,
        {**facts, "largest_error": error.max(axis=(1, 2, 3)).tolist(), "names": given.names},
    )


def _save_trace(bcm: BCM, found: Trace, strip: np.ndarray | None, run: Run, facts: dict[str, Any]) -> None:
    """strip: float [columns, N, C, H, W]; None where arrays are written."""
    if strip is None or run.output.suffix.lower() == ".npz":
        save_npz(run.output, {"states": found.states, "levels": np.array(found.levels)}, run.force)
    else:
        save_images(strip.swapaxes(0, 1).reshape(-1, *strip.shape[2:]), run.output, run.force, len(strip))
    run.report(bcm, {**facts, "levels": found.levels})


def _rgb(images: np.ndarray) -> np.ndarray:
    """[..., 1 or 3, H, W] → [..., 3, H, W]."""
    return np.broadcast_to(images, (*images.shape[:-3], 3, *images.shape[-2:]))


def _pair_labels(run: Run, bcm: BCM, pairs: Sequence[ImageSet]) -> Sequence[np.ndarray | list[int] | None]:
    """Labels of A and of B: from --label, else from their npz files."""
    if run.label == GUESS:
        return [run.guessed(bcm, one.images) for one in pairs]
    if run.label is None:
        stored = [stored_labels(one.labels, len(one.images), bcm) for one in pairs]
        if (stored[0] is None) != (stored[1] is None):
            raise LabelError("only one of A and B has labels of its own; give --label, as in 3,5, or guess")
        return stored
    if run.label == ALL:
        return [parse_labels(run.label, len(one.images), bcm) for one in pairs]
    cycle = labels_of(run.label, bcm.num_classes, bcm.classes)
    if len(cycle) > 2:
        raise LabelError(f"--label {run.label}: give one label for both images, or two, of A and of B")
    return [[label] * len(one.images) for label, one in zip((cycle[0], cycle[-1]), pairs, strict=True)]
