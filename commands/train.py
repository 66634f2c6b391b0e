"""bcm-edge train: from images to a checkpoint."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import InputError, Interrupted
from ..runtime.checks.doctor import require_extra
from .console import QUIET, note, progress, result
from .log import ARGUMENTS
from .options import (
    config_option,
    force_option,
    json_option,
    known_fields,
    output_option,
    preset_option,
    value_range_option,
)
from .paths import PATH, PATH_OR_NAME
from .train_options import Settings, augment_option, settings_options, train_precision_option
from .train_progress import TrainProgress

if TYPE_CHECKING:
    from ..model.checkpoint import Checkpoint
    from ..runtime.pixels import ValueRange


@click.command(
    short_help="Train a model on images.",
    epilog="Example:  bcm-edge train --data photos/ --steps 20000 -o photos.safetensors",
)
@click.option(
    "--data",
    required=True,
    type=PATH_OR_NAME,
    metavar="DATA",
    help="The training images: digits, a FOLDER of images (its sub-folders are classes), or an npz file with "
    "`images` and optionally `labels` and `classes`.",
)
@output_option("The checkpoint to write (.safetensors). A picture of samples is written beside it.", "file")
@click.option(
    "--init",
    type=PATH,
    help="A checkpoint to start from: a BCM, a denoiser, an iCT network, or the folder of a consistency "
    "model of diffusers; with --objective edm a denoiser.",
)
@click.option(
    "--teacher",
    type=PATH,
    help="An EDM denoiser of the same data to distil: targets follow its probability flow. It gives sharper "
    "samples after short training. Start from it, too, with --init.",
)
@preset_option
@config_option
@click.option(
    "--objective",
    type=click.Choice(["bcm", "edm"]),
    default="bcm",
    show_default=True,
    help="The model to train: a BCM, or an EDM denoiser, the baseline of `evaluate`.",
)
@click.option(
    "--steps",
    metavar="N",
    default=3000,
    show_default=True,
    type=click.IntRange(1),
    help="Number of optimizer steps.",
)
@click.option(
    "--batch", metavar="N", default=64, show_default=True, type=click.IntRange(1), help="Images per step."
)
@click.option(
    "--learning-rate", metavar="X", default=2e-3, show_default=True, help="Largest learning rate of the run."
)
@click.option(
    "--intervals",
    metavar="N",
    default=160,
    show_default=True,
    help="Intervals of a BCM's finest noise grid, at least 10. Use fewer for runs of less than 2000 steps.",
)
@click.option(
    "--channels",
    metavar="N",
    type=click.IntRange(1),
    help="Channels of the network at full resolution, a multiple of 8 (default: 32; with --init, those of "
    "the checkpoint).",
)
@click.option(
    "--levels",
    metavar="N",
    type=click.IntRange(1),
    help="Resolutions of a new network, each half of the one before (default: until 4 to 7 pixels a side are "
    "left).",
)
@click.option(
    "--image-size",
    metavar="N",
    type=click.IntRange(1),
    help="Side of the images in pixels; images in a folder are resized to it.",
)
@value_range_option
@click.option(
    "--seed", metavar="N", default=0, show_default=True, help="Seed of all random numbers, at least 0."
)
@train_precision_option
@augment_option
@settings_options
@click.option(
    "--resume",
    is_flag=True,
    help="Continue an interrupted run of the same command at the last saved step, or extend a finished one "
    "with more --steps.",
)
@click.option(
    "--discard-state",
    is_flag=True,
    help="Remove OUTPUT.state at the end: the float32 state, which --resume needs to extend the run.",
)
@force_option
@json_option
def train(
    data: str,
    output: Path,
    init: Path | None,
    teacher: Path | None,
    preset: str | None,
    config_file: Path | None,
    objective: str,
    steps: int,
    batch: int,
    learning_rate: float,
    intervals: int,
    channels: int | None,
    levels: int | None,
    image_size: int | None,
    value_range: ValueRange,
    seed: int,
    precision: str,
    augment: tuple[str, ...],
    settings: Settings,
    resume: bool,
    discard_state: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Train a bidirectional consistency model, class-conditional if the data has labels.

    The names of a folder's sub-folders are the names of the classes; an npz file names them in the array
    `classes`. The checkpoint contains these names. With --init, classes of the same name are the same class.
    """
    require_extra("train")
    from ..training.options import TrainOptions
    from ..training.run import train as run_training

    width = channels or TrainOptions.channels
    options = TrainOptions(
        steps,
        batch,
        learning_rate,
        intervals,
        width,
        seed,
        objective,
        precision,
        augment,
        settings.held_out_share(),
        levels,
    )
    with settings.execution() as execution:
        processes = execution.processes
        if not processes.main:
            click.get_current_context().meta[QUIET] = True
        start = _initial(init, preset, config_file, channels, levels) if init else None
        try:
            samples = run_training(
                data,
                output,
                options,
                TrainProgress() if processes.main else None,
                init=start,
                teacher=_checkpoint(teacher) if teacher else None,
                image_size=image_size,
                value_range=value_range,
                report=progress,
                execution=execution,
                logs=settings.logs(output),
                resume=resume,
                force=force,
                discard_state=discard_state,
            )
        except Interrupted as error:
            if not processes.main:
                return  # without an error, because of which a launcher would end the main process
            raise Interrupted(
                f"{error}; to go on:\n  {_resuming_command(processes.count)}", error.signal
            ) from None
    if not processes.main:
        return
    progress(f"samples: {samples}\ncurves: {settings.logs(output).folder}/")
    progress("\n  ".join(["next:", *_next_commands(data, output, objective)]))
    result(as_json, {"checkpoint": str(output), "samples": str(samples), "steps": steps}, str(output))


def _initial(
    init: Path, preset: str | None, config_file: Path | None, channels: int | None, levels: int | None
) -> Checkpoint:
    """Return the checkpoint to start from. Raises CheckpointError; InputError if an option contradicts it."""
    checkpoint = _checkpoint(init, known_fields(preset, config_file))
    config = checkpoint.config
    for name, value, own in (
        ("channels", channels, config.model_channels),
        ("levels", levels, len(config.channel_mult)),
    ):
        if value not in (None, own):
            raise InputError(f"--{name} {value} contradicts {init}, which has {own} {name}; leave it out")
    return checkpoint


def _checkpoint(path: Path, fields: dict[str, Any] | None = None) -> Checkpoint:
    """Return a checkpoint, and print its notes. Raises CheckpointError."""
    from ..model.checkpoint import load_checkpoint

    checkpoint = load_checkpoint(path, fields)
    for line in checkpoint.notes:
        note(line)
    return checkpoint


def _resuming_command(processes: int) -> str:
    """Return the command line of this process with --resume, with a launcher for several processes."""
    arguments: list[str] = click.get_current_context().meta[ARGUMENTS]
    launcher = ["torchrun", "--standalone", f"--nproc-per-node={processes}", "-m", "bcm_edge"]
    program = launcher if processes > 1 else ["bcm-edge"]
    return shlex.join([*program, *arguments, *([] if "--resume" in arguments else ["--resume"])])


def _next_commands(data: str, output: Path, objective: str) -> list[str]:
    if objective == "edm":
        return [
            f"bcm-edge train --data {data} --init {output} --teacher {output} -o BCM.safetensors",
            f"bcm-edge evaluate BUNDLE --data {data} --baseline {output}",
        ]
    return [f"bcm-edge export {output} -o {output.with_suffix('.bundle')}"]
