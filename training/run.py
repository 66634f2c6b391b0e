"""A whole training run: from a data set to a checkpoint file. It can be resumed after an interruption."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from ..errors import NonFiniteError, OutputError
from ..model.checkpoint import Checkpoint, save_checkpoint
from ..model.config import NetworkConfig
from ..model.player import TorchBackend
from ..model.samplers import Solver
from ..runtime.batches import BATCH, Batch, play_in_parts
from ..runtime.chain import play
from ..runtime.pictures.writing import save_images
from ..runtime.pixels import ValueRange
from ..runtime.schedule import ONE_STEP
from ..runtime.storage.files import check_free
from .data import load_dataset
from .dataset import Dataset
from .execution import DEFAULT, Execution
from .networks import check_step, fitting, network_for
from .options import TrainOptions
from .trainer import Trainer

SAVE_EVERY = 100  # steps between state files
SAMPLES = 100  # images in the picture beside the checkpoint
SHEET_SOLVER = Solver("heun", 18)  # for the picture of a denoiser; EDM's choice for small images


@dataclass(frozen=True)
class Progress:
    """The progress of a run."""

    # Steps done.
    step: int
    # Steps of the whole run.
    steps: int
    # Intervals of a BCM's grid of noise levels; None for a denoiser.
    intervals: int | None
    # The losses of the batch of this step, by name.
    losses: dict[str, float]
    # Estimated remaining time.
    seconds_left: float


OnProgress = Callable[[Progress], None]
Report = Callable[[str], None]


def train(
    data: str,
    output: Path,
    options: TrainOptions,
    on_progress: OnProgress | None = None,
    *,
    init: Checkpoint | None = None,
    image_size: int | None = None,
    value_range: ValueRange = None,
    report: Report = lambda line: None,
    execution: Execution = DEFAULT,
    resume: bool = False,
    force: bool = False,
) -> Path:
    """Train on a data set, and write a safetensors checkpoint in fp16, with a picture of samples beside it.

    data, image_size, value_range: see `load_dataset`.
    output: the checkpoint. Returns the path of the picture.
    on_progress: called after every step.
    init: a checkpoint of the same objective to fine-tune; for "bcm" also an iCT network with its identity
    initialisation. It determines the network, the size and colour of images, and the numbers of classes.
    report: called with lines about the data before the first step.
    resume: continue from the state file `output`.state, which is removed at the end of a run.
    force: replace existing outputs, and an existing state file unless `resume` is set.

    Raises an InputError before the first step if an argument cannot be used, NonFiniteError if training
    diverges.
    """
    pictures = output.with_suffix(".png")
    state = output.with_name(output.name + ".state")
    _check_outputs(output, pictures, state, resume, force)
    part = execution.part_of(options.batch)
    if image_size and execution.torch_device() == "cpu":  # before the images are read
        check_step(part, options.channels, image_size)
    dataset = load_dataset(data, image_size, init.facts if init else None, value_range)
    config = fitting(init.config, dataset) if init else network_for(dataset, options.channels)
    for line in dataset.summary(config.num_classes):
        report(line)
    for note in dataset.notes:
        report(f"note: {note}")
    trainer = fit(dataset, config, options, state, on_progress, init=init, execution=execution, resume=resume)
    _save_results(trainer, output, pictures)
    state.unlink(missing_ok=True)
    return pictures


def fit(
    dataset: Dataset,
    config: NetworkConfig,
    options: TrainOptions,
    state: Path,
    on_progress: OnProgress | None = None,
    *,
    init: Checkpoint | None = None,
    execution: Execution = DEFAULT,
    resume: bool = False,
) -> Trainer:
    """Make all steps of a run, and return its trainer.

    state: the state file, which is written every SAVE_EVERY steps. resume: continue from it if it exists.
    """
    trainer = Trainer(dataset, config, options, execution, init)
    if resume and state.exists():
        trainer.restore(state)
    started, first = time.monotonic(), trainer.done
    trainer.save(state)  # a state file that cannot be written is an error before the first step
    while trainer.done < options.steps:
        intervals = trainer.intervals() if options.objective == "bcm" else None
        losses = trainer.step()
        if trainer.done % SAVE_EVERY == 0:
            trainer.save(state)
        if on_progress:
            seconds_per_step = (time.monotonic() - started) / (trainer.done - first)
            seconds_left = seconds_per_step * (options.steps - trainer.done)
            on_progress(Progress(trainer.done, options.steps, intervals, losses, seconds_left))
    return trainer


def _save_results(trainer: Trainer, output: Path, pictures: Path) -> None:
    """Write the checkpoint and the picture of samples. Raises NonFiniteError if training diverged."""
    checkpoint = trainer.checkpoint()
    if not all(tensor.isfinite().all() for tensor in checkpoint.state_dict.values()):
        raise NonFiniteError(
            "training diverged: NaN or infinity in the weights after the last step; use a lower learning rate"
        )
    save_checkpoint(
        output,
        trainer.average,
        checkpoint.config,
        checkpoint.schedules,
        checkpoint.provenance,
        classes=checkpoint.classes,
    )
    save_images(sample_sheet(checkpoint), pictures, force=True)


def sample_sheet(checkpoint: Checkpoint) -> np.ndarray:
    """Return samples in the order of their classes, float32 [SAMPLES, C, H, W], with the seeds 0, 1, ….

    The samples of a BCM are made in one step.
    """
    classes = checkpoint.config.num_classes
    labels = None if classes is None else np.sort(np.arange(SAMPLES) % classes)
    if checkpoint.objective == "edm":
        return SHEET_SOLVER.generate(checkpoint.denoiser(), range(SAMPLES), labels)
    backend = TorchBackend(checkpoint.model())
    return play_in_parts(partial(play, ONE_STEP, backend), BATCH, Batch(range(SAMPLES), labels))


def _check_outputs(output: Path, pictures: Path, state: Path, resume: bool, force: bool) -> None:
    """Raise OutputError unless all files of a run can be written."""
    for file in (output, pictures):
        check_free(file, force)
    if output.suffix != ".safetensors":
        raise OutputError(f"{output}: a checkpoint is written as .safetensors")
    check_free(state, force=True)
    if state.exists() and not (resume or force):
        raise OutputError(
            f"{state} is the state of an unfinished run; --resume continues it, --force starts a new run"
        )
