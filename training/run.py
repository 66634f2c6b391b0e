"""A whole training run: from a data set to a checkpoint file. It can be interrupted, resumed and extended.

Beside the checkpoint, which is rounded to float16, a run keeps its state in float32 (training/state.py).
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path

from ..errors import CheckpointError, Interrupted, NonFiniteError, OutputError
from ..model.checkpoint import Checkpoint, save_checkpoint
from ..model.config import NetworkConfig
from ..runtime.checks.doctor import require_extra
from ..runtime.pictures.writing import save_images
from ..runtime.pixels import ValueRange
from ..runtime.storage.files import check_free
from .data import load_dataset
from .dataset import Dataset
from .execution import DEFAULT, Execution
from .interrupts import first_signal_noted
from .networks import check_step, fitting, network_for
from .options import LogOptions, TrainOptions
from .record import check_folder
from .sheet import SAMPLES, sample_sheet, sheet_grid
from .state import Header, read_header
from .summary import summary
from .trainer import Trainer
from .validation import split
from .watch import OnProgress, Watch

NO_LOGS = LogOptions()
SAVE_EVERY, SAVE_SECONDS = 100, 60.0  # steps and seconds between state files, whichever is shorter


Report = Callable[[str], None]


def train(
    data: str,
    output: Path,
    options: TrainOptions,
    on_progress: OnProgress | None = None,
    *,
    init: Checkpoint | None = None,
    teacher: Checkpoint | None = None,
    image_size: int | None = None,
    value_range: ValueRange = None,
    report: Report = lambda line: None,
    execution: Execution = DEFAULT,
    logs: LogOptions = NO_LOGS,
    resume: bool = False,
    force: bool = False,
    discard_state: bool = False,
) -> Path:
    """Train on a data set, and write a safetensors checkpoint in fp16, with a picture of samples beside it.

    data, image_size, value_range: see `load_dataset`.
    output: the checkpoint. Returns the path of the picture.
    on_progress: called after every step.
    init: a checkpoint of the same objective to fine-tune; for "bcm" also an iCT network with its identity
    initialisation, or a denoiser. It determines the network, the size and colour of images, and the numbers
    of classes.
    teacher: a denoiser of the same data to distil a BCM from; None trains on the data alone.
    report: called with lines about the data, the network and the device before the first step.
    execution: how the steps are computed. logs: what is recorded.
    resume: continue from the state file `output`.state if it exists. If all its steps are done and `options`
    has more, the run is extended. The outputs of the run are replaced.
    force: replace existing outputs, and an existing state file unless `resume` is set.
    discard_state: remove the state file at the end.

    The first SIGINT (Ctrl-C) or SIGTERM stops the run after the current step. Its state is saved, and
    Interrupted, a KeyboardInterrupt, is raised. Several processes (`Execution.processes`) stop after the same
    step. Only the main one writes files; `on_progress` and `report` are called in each.

    Raises an InputError before the first step if an argument cannot be used, NonFiniteError if training
    diverges.
    """
    pictures = output.with_suffix(".png")
    state = output.with_name(output.name + ".state")
    _check_outputs(output, pictures, state, resume, force)
    if logs.folder:
        check_folder(logs.folder, resume and state.exists(), force)
    if logs.tensorboard:
        require_extra("tensorboard", "TensorBoard")
    if resume and state.exists():
        header = read_header(state)
        header.check_steps(options.steps, state)
        report(_continuation(header, options.steps))
    part = execution.part_of(options.batch)
    if image_size and execution.torch_device() == "cpu":  # before the images are read
        check_step(part, options.channels, image_size)
    dataset = load_dataset(data, image_size, init.facts if init else None, value_range)
    config = fitting(init.config, dataset) if init else network_for(dataset, options.channels, options.levels)
    for line in dataset.summary(config.num_classes):
        report(line)
    for note in dataset.notes:
        report(f"note: {note}")
    held_out = None
    if options.held_out:
        dataset, held_out = split(dataset, options.held_out)
        report(f"held out: {len(held_out)} images for validation; {len(dataset)} images are trained on")
    trainer = fit(
        dataset,
        config,
        options,
        state,
        on_progress,
        init=init,
        teacher=teacher,
        execution=execution,
        logs=logs,
        held_out=held_out,
        report=report,
        resume=resume,
    )
    if not execution.processes.main:
        return pictures
    report(f"samples: making {SAMPLES} images")
    try:
        _save_results(trainer, output, pictures)
    except KeyboardInterrupt:
        raise Interrupted(
            "all steps are done, but not the checkpoint and its samples", signal.SIGINT
        ) from None
    if discard_state:
        state.unlink()
    return pictures


def fit(
    dataset: Dataset,
    config: NetworkConfig,
    options: TrainOptions,
    state: Path,
    on_progress: OnProgress | None = None,
    *,
    init: Checkpoint | None = None,
    teacher: Checkpoint | None = None,
    execution: Execution = DEFAULT,
    logs: LogOptions = NO_LOGS,
    held_out: Dataset | None = None,
    report: Report = lambda line: None,
    resume: bool = False,
) -> Trainer:
    """Make all steps of a run, and return its trainer.

    state: the state file, which is written every SAVE_EVERY steps, after SAVE_SECONDS, and after the last
    step. resume: continue from it if it exists. held_out: images for validation losses.

    Raises Interrupted after a signal.
    """
    trainer = Trainer(dataset, config, options, execution, init, teacher)
    if resume and state.exists():
        trainer.restore(state)
    for line in summary(trainer):
        report(line)
    saved, saved_at, number = trainer.done, time.monotonic(), 0
    processes = execution.processes
    processes.wait()  # all have looked for files of the run; from here on, they are written
    if processes.main:
        trainer.save(state)  # a state file that cannot be written is an error before the first step
    else:
        logs, held_out = NO_LOGS, None
    try:
        with (
            first_signal_noted(ignore_others=processes.count > 1) as stop,
            Watch(trainer, logs, held_out, on_progress) as watch,
        ):
            while trainer.done < options.steps and not number:
                watch.step()
                number = processes.largest(stop.signal or 0)  # all stop after the same step
                due = trainer.done % SAVE_EVERY == 0 or time.monotonic() - saved_at >= SAVE_SECONDS
                if due or trainer.done == options.steps or number:
                    if processes.main:
                        trainer.save(state)
                    saved, saved_at = trainer.done, time.monotonic()
                watch.show()
            if number := number or stop.signal or 0:
                raise Interrupted(f"stopped after step {saved} of {options.steps}", number)
    except Interrupted:
        raise
    except KeyboardInterrupt:  # the second one
        raise Interrupted(f"stopped at once; the state of step {saved} is saved", signal.SIGINT) from None
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
    images = sample_sheet(checkpoint)
    save_images(images, pictures, force=True, grid=sheet_grid(checkpoint, images))


def _check_outputs(output: Path, pictures: Path, state: Path, resume: bool, force: bool) -> None:
    """Raise OutputError unless all files of a run can be written."""
    if output.suffix != ".safetensors":
        raise OutputError(f"{output}: a checkpoint is written as .safetensors")
    if state.exists() and not (resume or force):
        raise OutputError(
            f"{state} is the state of {_progress(state)}; --resume continues it, also with more --steps, and "
            "--force starts a new run"
        )
    if resume and not force and output.exists() and not state.exists():
        raise OutputError(
            f"{output} exists without its state, {state.name}, so its run cannot continue; fine-tune it with "
            "--init, or start a new run with --force"
        )
    for file in (output, pictures):  # of a run that continues, they are replaced
        check_free(file, force or (resume and state.exists()))
    check_free(state, force=True)


def _continuation(header: Header, steps: int) -> str:
    """Return a line about the run that continues."""
    line = f"resumed: {header} are done"
    if steps != header.steps:
        return f"{line}; the learning rate and the noise grid now follow {steps} steps"
    return f"{line}; more --steps would extend the run" if header.done == steps else line


def _progress(state: Path) -> str:
    """Return the progress of the run of a state file, for a message."""
    try:
        return f"a run with {read_header(state)}"
    except CheckpointError:
        return "a run"
