"""What a run shows and records beside its steps: progress, validation losses, samples, curves."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType

from .dataset import Dataset
from .options import LogOptions
from .record import Record
from .sheet import sample_sheet, seconds_per_sheet, sheet_grid
from .timing import Estimate
from .trainer import Trainer
from .validation import validation_losses

LOSSES = {"bcm": ["consistency", "soft"], "edm": ["denoising"]}


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
    # Estimated remaining time, including validation and samples, also those after the last step. None after
    # the first step, if it compiled the network.
    seconds_left: float | None
    # The losses of the held-out images, by name; empty at steps at which they are not measured.
    validation: dict[str, float] = field(default_factory=dict)


OnProgress = Callable[[Progress], None]


class Watch:
    """Makes the steps of a run one by one, and shows and records them.

    held_out: images to measure validation losses on, or None. done: see `Record`.
    """

    def __init__(
        self,
        trainer: Trainer,
        logs: LogOptions,
        held_out: Dataset | None,
        on_progress: OnProgress | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.trainer = trainer
        self.logs = logs
        self.held_out = held_out
        self.on_progress = on_progress
        self.clock = clock
        self._progress: Progress | None = None
        self.record: Record | None = None
        if logs.folder:
            names = LOSSES[trainer.options.objective]
            self.record = Record(logs.folder, names, trainer.done, logs.tensorboard)
        seconds = seconds_per_sheet(trainer.checkpoint(), clock) if on_progress else 0.0
        self.estimate = Estimate(
            trainer.options.steps,
            self._samples_every(),
            self._eval_every(),
            seconds,
            trainer.execution.compile,
        )

    def __enter__(self) -> Watch:
        """Return the watch. The record is closed at the end of the block."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        """Close the record, and write the curves."""
        if self.record:
            self.record.close()
            self.record.save_curve()

    def step(self) -> None:
        """Make the next step, and record it; measure validation losses and make samples, if it is time."""
        trainer, steps = self.trainer, self.trainer.options.steps
        intervals = trainer.intervals() if trainer.options.objective == "bcm" else None
        settings = {"learning_rate": trainer.learning_rate()}
        settings |= {} if intervals is None else {"intervals": intervals}
        started = self.clock()
        losses = trainer.step()
        self.estimate.add_step(self.clock() - started)
        last = trainer.done == steps
        validation = self._validation(last)
        if self.record:
            self.record.step(trainer.done, losses, settings, validation, last)
            if not last and self._samples_every() and trainer.done % self._samples_every() == 0:
                started = self.clock()
                checkpoint = trainer.checkpoint()
                grid = sheet_grid(checkpoint, sample_sheet(checkpoint), f"step {trainer.done}")
                self.record.samples(trainer.done, grid)
                self.estimate.seconds_per_sheet = self.clock() - started
        left = self.estimate.seconds_left(trainer.done)
        self._progress = Progress(trainer.done, steps, intervals, losses, left, validation)

    def show(self) -> None:
        """Call `on_progress` with the progress after the latest step."""
        if self.on_progress and self._progress:
            self.on_progress(self._progress)

    def _validation(self, last: bool) -> dict[str, float]:
        every = self._eval_every()
        if self.held_out is None or not every or (self.trainer.done % every and not last):
            return {}
        started = self.clock()
        losses = validation_losses(self.trainer, self.held_out)
        self.estimate.seconds_per_eval = self.clock() - started
        return losses

    def _samples_every(self) -> int:
        return self.logs.samples_every if self.record else 0

    def _eval_every(self) -> int:
        return self.logs.eval_every if self.held_out is not None else 0
