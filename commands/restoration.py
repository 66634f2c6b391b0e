"""bcm-edge restore, purify: images that were damaged, or changed to mislead a classifier."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import click

from ..runtime.classes import GUESS
from ..runtime.pipeline import BCM
from ..runtime.tasks.restoration import restoration
from .editing import OUTPUT, beside_option, finish, play
from .options import bundle_argument
from .run import GUESSABLE, GUESSED_BY_DEFAULT, Run, images_argument, run_options
from .schedules import restoration_option, restoring

_strength_option = click.option(
    "--strength",
    metavar="X",
    default=0.2,
    show_default=True,
    help="Noise level of the damage, at least 0.002 and below 5; finer detail is replaced. "
    "Ignored with --schedule.",
)


@click.command(
    short_help="Repair compressed, blurred or noisy images.",
    epilog="Example:  bcm-edge restore digits bad.jpg --label guess -o good.png",
)
@bundle_argument
@images_argument
@_strength_option
@restoration_option
@beside_option
@run_options(OUTPUT, GUESSABLE)
def restore(
    bundle: Path, images: tuple[Path, ...], strength: float, schedule: str | None, beside: bool, run: Run
) -> None:
    """Repair compressed, blurred or noisy IMAGES (files, folders or one npz file).

    The kind of damage need not be known.
    """
    with run.open(bundle) as bcm:
        _restore(run, bcm, images, strength, schedule, "restoring", beside)


@click.command(
    short_help="Remove adversarial changes from images.",
    epilog="Example:  bcm-edge purify digits attacked/ -o clean/",
)
@bundle_argument
@images_argument
@_strength_option
@restoration_option
@beside_option
@run_options(OUTPUT, GUESSED_BY_DEFAULT)
def purify(
    bundle: Path, images: tuple[Path, ...], strength: float, schedule: str | None, beside: bool, run: Run
) -> None:
    """Remove small changes that mislead a classifier from IMAGES (files, folders or one npz file).

    It works like `restore`, but without --label the model guesses the labels: the labels that come with
    attacked images cannot be trusted.
    """
    with run.open(bundle) as bcm:
        trusts_label = run.label is not None or bcm.num_classes is None
        own_labels = run if trusts_label else replace(run, label=GUESS)
        _restore(own_labels, bcm, images, strength, schedule, "purifying", beside)


def _restore(
    run: Run,
    bcm: BCM,
    images: tuple[Path, ...],
    strength: float,
    schedule: str | None,
    title: str,
    beside: bool,
) -> None:
    program = restoring(bcm, schedule) if schedule else restoration(strength)
    image_set, labels = run.read(bcm, images)
    task = partial(bcm.restore, image_set.images)
    results, facts = play(run, bcm, title, program, image_set, labels, task)
    finish(run, bcm, image_set, image_set.images, results, labels, facts, beside)
