"""bcm-edge interpolate, variations, restyle: images from latents between two others, near one, or of another
class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np

from ..errors import LabelError
from ..runtime.arguments import check_targets, target_classes
from ..runtime.calls import OnMove
from ..runtime.classes import ALL, GUESS, labels_of
from ..runtime.pictures.animation import FORMATS, save_animation
from ..runtime.pictures.grids import Grid
from ..runtime.pictures.images import ImageSet
from ..runtime.pipeline import BCM
from .captions import class_texts, pairs_grid, title, transitions
from .far_latents import Inverted
from .options import bundle_argument, parse_labels
from .paths import PATH
from .run import GUESSABLE, Run, check_needs_no_labels, images_argument, run_options, stored_labels
from .schedules import inversion_option, schedule_option, to_image, to_noise

Labels = np.ndarray | list[int] | None


@click.command(
    short_help="Interpolate between two images, through their latents.",
    epilog="Example:  bcm-edge interpolate digits a.png b.png --label 3 -o ab.gif",
)
@bundle_argument
@click.argument("a", type=PATH)
@click.argument("b", type=PATH)
@click.option(
    "--frames",
    metavar="N",
    default=9,
    show_default=True,
    type=click.IntRange(2),
    help="Number of images per pair, including both ends.",
)
@inversion_option
@schedule_option
@run_options(
    "The output: .gif or .apng (an animation), .png (a row per pair), .npz, or a folder.",
    "Class labels: one label for both images, two for A and B (3,5), or guess to let the model guess them; "
    "numbers or names (default: those in the input files; required for class-conditional models otherwise).",
)
def interpolate(bundle: Path, a: Path, b: Path, frames: int, inversion: str, schedule: str, run: Run) -> None:
    """Invert A and B, and generate images from latents on the great circle between theirs.

    A and B are files, folders or npz files with equal numbers of images. The ends are the reconstructions
    of A and B. If their labels differ, the first half of the images is generated with the label of A, the
    second half with that of B.
    """
    with run.open(bundle, tuple(FORMATS)) as bcm:
        ends = [run.images(bcm, [path], bcm.sample_shape) for path in (a, b)]
        labels, labels_b = _labels_of_ends(run, bcm, ends)
        up, down, n = to_noise(bcm, inversion), to_image(bcm, schedule), len(ends[0].images)
        inverted = Inverted([name for end in ends for name in end.names], up.nfe, up.nfe)

        def work(on_move: OnMove | None) -> np.ndarray:
            return bcm.interpolate(
                ends[0].images,
                ends[1].images,
                frames=frames,
                inversion=up,
                schedule=down,
                seed=run.seed,
                labels=labels,
                labels_b=labels_b,
                on_move=inverted.watching(on_move),
            )

        images, facts = run.play(bcm, "interpolating", up + down, n * frames, work)
        far = inverted.note()
        nfe = 2 * up.nfe + frames * down.nfe
        if run.output.suffix.lower() in FORMATS:
            known = run.origin(bcm, facts)
            save_animation(images.swapaxes(0, 1), run.output, run.force, run.scale, known)
        else:
            ways = transitions(class_texts(bcm, labels), class_texts(bcm, labels_b))
            shares = [f"{round(100 * share)} %" for share in np.linspace(0, 1, frames)]
            grid = Grid(list(images), title([inversion, schedule], nfe), ways, ["A", *shares[1:-1], "B"])
            labels_of_frames = _labels_of_frames(labels, labels_b, frames)
            run.save(bcm, images.reshape(-1, *bcm.sample_shape), facts, grid, labels=labels_of_frames)
        run.report(bcm, {**facts, "pairs": n, "nfe": nfe, "far_from_noise": far}, "per pair")


@click.command(
    short_help="Generate images that are similar to given ones.",
    epilog="Example:  bcm-edge variations digits 3.png --label 3 -n 8 -o near.png",
)
@bundle_argument
@images_argument
@click.option(
    "-n",
    "--number",
    "--num-images",
    "number",
    metavar="N",
    default=4,
    show_default=True,
    type=click.IntRange(1),
    help="Number of variations per image.",
)
@click.option(
    "--strength",
    metavar="X",
    default=0.3,
    show_default=True,
    type=click.FloatRange(0, 1),
    help="How far the latents turn towards fresh noise: 0 reconstructs the image, 1 ignores it.",
)
@inversion_option
@schedule_option
@run_options(
    "The output: .png (a row per image: the image, then its variations), .npz, or a folder.", GUESSABLE
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
    """Invert IMAGES (files, folders or one npz file), turn their latents towards noise, and generate."""
    with run.open(bundle) as bcm:
        image_set, labels = run.read(bcm, images)
        originals = image_set.images
        up, down, n = to_noise(bcm, inversion), to_image(bcm, schedule), len(originals)
        inverted = Inverted(image_set.names, up.nfe, up.nfe)

        def work(on_move: OnMove | None) -> np.ndarray:
            return bcm.variations(
                originals,
                number,
                strength=strength,
                inversion=up,
                schedule=down,
                seed=run.seed,
                labels=labels,
                on_move=inverted.watching(on_move),
            )

        results, facts = run.play(bcm, "varying", up + down, n * number, work)
        far = inverted.note()
        nfe = up.nfe + number * down.nfe
        grid = Grid(
            list(np.concatenate([originals[:, None], results], axis=1)),
            title([inversion, schedule], nfe, f"strength {strength:g}"),
            class_texts(bcm, labels),
            ["input", *(f"variation {index + 1}" for index in range(number))],
        )
        repeated = None if labels is None else np.repeat(np.asarray(labels, np.int64), number)
        run.save(bcm, results.reshape(-1, *bcm.sample_shape), facts, grid, labels=repeated)
        run.report(bcm, {**facts, "strength": strength, "nfe": nfe, "far_from_noise": far}, "per given image")


@click.command(
    short_help="Redraw images under another class.",
    epilog="Example:  bcm-edge restyle digits 3.png --label 3 --to 8 -o eight.png",
)
@bundle_argument
@images_argument
@click.option(
    "--to",
    metavar="LABELS",
    help="The class to generate: a number, a name, a list that is repeated in order, or all. Required.",
)
@inversion_option
@schedule_option
@run_options("The output: .png (each image above its result), .npz, or a folder of results.", GUESSABLE)
def restyle(
    bundle: Path, images: tuple[Path, ...], to: str | None, inversion: str, schedule: str, run: Run
) -> None:
    """Invert IMAGES (files, folders or one npz file) under their label, and generate them under another.

    A class may be a style of drawing, a material or a digit. The latent of an image keeps what the classes
    have in common. The model must have at least two classes.
    """
    with run.open(bundle) as bcm:
        target_classes(to, bcm.num_classes, bcm.classes)  # before the images are read and labels guessed
        image_set, labels = run.read(bcm, images)
        originals, n = image_set.images, len(image_set.images)
        targets = check_targets(to, n, bcm.num_classes, bcm.classes)
        up, down = to_noise(bcm, inversion), to_image(bcm, schedule)
        inverted = Inverted(image_set.names, up.nfe, up.nfe)

        def work(on_move: OnMove | None) -> np.ndarray:
            return bcm.restyle(
                originals,
                to=targets,
                inversion=up,
                schedule=down,
                seed=run.seed,
                labels=labels,
                on_move=inverted.watching(on_move),
            )

        results, facts = run.play(bcm, "restyling", up + down, n, work)
        texts = transitions(class_texts(bcm, labels), class_texts(bcm, targets))
        grid = pairs_grid(originals, results, texts, title([inversion, schedule], (up + down).nfe))
        run.save(bcm, results, facts, grid, originals=originals, **run.per_image(n, targets))
        classes = {"labels": np.asarray(labels).tolist(), "to": targets.tolist()}
        run.report(bcm, {**facts, "names": image_set.names, **classes, "far_from_noise": inverted.note()})


def _labels_of_ends(run: Run, bcm: BCM, ends: Sequence[ImageSet]) -> Sequence[Labels]:
    """Return the labels of A and those of B, from --label or else from their inputs. Raises LabelError."""
    if run.label == GUESS:
        return [run.guessed(bcm, end.images) for end in ends]
    if run.label is None:
        stored = [stored_labels(end.labels, len(end.images), bcm, end.labels_from) for end in ends]
        if (stored[0] is None) != (stored[1] is None):
            raise LabelError("only one of A and B comes with labels; give --label, as in 3,5, or guess")
        if stored[0] is None:
            check_needs_no_labels(bcm)
        return stored
    if run.label == ALL:
        return [parse_labels(run.label, len(end.images), bcm) for end in ends]
    labels = labels_of(run.label, bcm.num_classes, bcm.classes)
    if len(labels) > 2:
        raise LabelError(f"--label {run.label}: {len(labels)} labels; give one for both images, or two")
    return [[label] * len(end.images) for label, end in zip((labels[0], labels[-1]), ends, strict=True)]


def _labels_of_frames(labels: Labels, labels_b: Labels, frames: int) -> np.ndarray | None:
    """Return the labels [N · frames] of the frames of all pairs: A's in the first half, then B's."""
    if labels is None or labels_b is None:
        return None
    in_first_half = np.linspace(0, 1, frames) < 0.5
    return np.where(in_first_half, np.asarray(labels)[:, None], np.asarray(labels_b)[:, None]).ravel()
