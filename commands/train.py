"""bcm-edge train: from images to a checkpoint."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..errors import InputError
from .console import (
    config_option,
    force_option,
    json_option,
    known_fields,
    output_option,
    preset_option,
    progress,
    require_extra,
    result,
    value_range_option,
)
from .paths import PATH, PATH_OR_NAME

if TYPE_CHECKING:
    from ..runtime.pixels import ValueRange
    from ..training.run import Progress

_PERIOD = 20  # steps between lines of progress where they replace one another, ×10 where they do not


@click.command(
    short_help="Images to a checkpoint.",
    epilog="Example:  bcm-edge train --data photos/ --steps 20000 -o photos.safetensors",
)
@click.option(
    "--data",
    required=True,
    type=PATH_OR_NAME,
    metavar="DATA",
    help="digits, a FOLDER of images (sub-folders are classes), or an npz with images [, labels, classes].",
)
@output_option("The checkpoint to write, with a picture of samples beside it.", "file")
@click.option("--init", type=PATH, help="To fine-tune: a BCM or an iCT network, with edm a denoiser.")
@preset_option
@config_option
@click.option(
    "--objective",
    type=click.Choice(["bcm", "edm"]),
    default="bcm",
    show_default=True,
    help="edm: a plain denoiser, the baseline that evaluate compares with.",
)
@click.option("--steps", default=3000, show_default=True, type=click.IntRange(1), help="Optimiser steps.")
@click.option("--batch", default=64, show_default=True, type=click.IntRange(1), help="Images per step.")
@click.option("--learning-rate", default=2e-3, show_default=True, help="Peak of the schedule.")
@click.option(
    "--intervals",
    default=160,
    show_default=True,
    help="Of a BCM's finest noise grid; fewer suit runs under 2000 steps.",
)
@click.option(
    "--channels",
    type=click.IntRange(1),
    help="Of the network at full resolution, a multiple of 8 (default: 32).",
)
@click.option("--image-size", type=click.IntRange(1), help="Pixels; a folder's images are resized to it.")
@value_range_option
@click.option("--seed", default=0, show_default=True, help="Of everything random.")
@click.option("--device", default="cpu", show_default=True, help="cpu, or cuda.")
@click.option("--resume", is_flag=True, help="Go on where a killed run of the same command stopped.")
@force_option
@json_option
def train(
    data: str,
    output: Path,
    init: Path | None,
    preset: str | None,
    config_file: Path | None,
    objective: str,
    steps: int,
    batch: int,
    learning_rate: float,
    intervals: int,
    channels: int | None,
    image_size: int | None,
    value_range: ValueRange,
    seed: int,
    device: str,
    resume: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Train a bidirectional consistency model, class-conditional where the data has labels.

    The names of a folder's sub-folders are the names of the classes, and are kept in the checkpoint. An npz file names its classes in
    an array `classes`. With --init, classes of the same name are the same class.
    """
    require_extra("train")
    from ..model.checkpoint import load_checkpoint
    from ..training.options import TrainOptions
    from ..training.run import train as run_training

    options = TrainOptions(
        steps, batch, learning_rate, intervals, channels or TrainOptions.channels, seed, objective
    )
    start = load_checkpoint(init, known_fields(preset, config_file)) if init else None
    if start and channels not in (None, start.config.model_channels):
        raise InputError(
            f"{init} has {start.config.model_channels} channels, so --channels {channels} cannot be; leave it out"
        )
    for note in start.notes if start else ():
        progress(f"note: {note}")
    samples = run_training(
        data,
        output,
        options,
        _show,
        init=start,
        image_size=image_size,
        value_range=value_range,
        report=progress,
        device=device,
        resume=resume,
        force=force,
    )
    export = f"bcm-edge export {output} -o {output.with_suffix('.bundle')}"
    compare = f"bcm-edge evaluate BUNDLE --data DATA --baseline {output}"
    progress(f"samples: {samples}\nnext:\n  {compare if objective == 'edm' else export}")
    result(as_json, {"checkpoint": str(output), "samples": str(samples), "steps": steps}, str(output))


def _show(at: Progress) -> None:
    """One line that replaces itself in a terminal, one every 200 steps in a log."""
    terminal = sys.stderr.isatty()
    if at.step % (_PERIOD if terminal else 10 * _PERIOD) and at.step != at.steps:
        return
    minutes, seconds = divmod(round(at.seconds_left), 60)
    grid = [] if at.intervals is None else [f"{at.intervals} intervals"]
    losses = [f"{name} {value:.4f}" for name, value in at.losses.items()]
    line = "  ".join([f"step {at.step}/{at.steps}", *grid, *losses, f"{minutes}:{seconds:02} left"])
    click.echo(f"\r{line}   " if terminal else line, file=sys.stderr, nl=not terminal or at.step == at.steps)
