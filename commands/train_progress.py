"""The progress of `bcm-edge train`: step, losses and remaining time."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from .console import progress, shows_bars

if TYPE_CHECKING:
    from ..training.watch import Progress

PERIOD_IN_A_TERMINAL = 0.2  # seconds between updates of the line
PERIOD = 5.0  # seconds between lines elsewhere, at first
LATER = 60.0  # seconds after which lines are printed every LATER_PERIOD seconds
LATER_PERIOD = 30.0


class TrainProgress:
    """Prints the progress of a run on stderr, by time: a line that is updated in a terminal, or new lines.

    Elsewhere, a line is printed after the first step, then every PERIOD seconds, later every LATER_PERIOD
    seconds, and after the last step. The losses are means over the steps since the line before.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._started = clock()
        self._due = self._started  # the time of the next line
        self._intervals: int | None = None
        self._losses: dict[str, list[float]] = {}

    def __call__(self, at: Progress) -> None:
        """Show the progress after a step."""
        if self._intervals not in (None, at.intervals):
            grid = f"the noise grid now has {at.intervals} intervals"
            self._print(f"step {at.step}: {grid}, so losses cannot be compared")
        self._intervals = at.intervals
        for name, value in at.losses.items():
            self._losses.setdefault(name, []).append(value)
        now = self._clock()
        if now >= self._due or at.step == at.steps:
            self._show(at)
            self._due = now + self._period(now - self._started)
        if at.validation:
            self._print(f"step {at.step}: held-out images  {_losses_text(at.validation)}")

    def _period(self, elapsed: float) -> float:
        if shows_bars():
            return PERIOD_IN_A_TERMINAL
        return PERIOD if elapsed < LATER else LATER_PERIOD

    def _show(self, at: Progress) -> None:
        means = {name: sum(values) / len(values) for name, values in self._losses.items()}
        self._losses.clear()
        line = f"step {at.step}/{at.steps}  {_losses_text(means)}"
        if at.seconds_left is not None:
            line += f"  {_duration(at.seconds_left)} left"
        if shows_bars():
            click.echo(f"\r{line}\033[K", file=sys.stderr, nl=at.step == at.steps)
        else:
            progress(line)

    def _print(self, line: str) -> None:
        """Print a line that stays, above the line that is updated."""
        if shows_bars():
            click.echo("\r\033[K", file=sys.stderr, nl=False)
        progress(line)


def _losses_text(losses: dict[str, float]) -> str:
    return "  ".join(f"{name} {value:.4f}" for name, value in losses.items())


def _duration(seconds: float) -> str:
    """Return a duration, such as 4:07 or 1:04:07."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
