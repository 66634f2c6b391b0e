"""The progress lines of `map`."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import click

from ..runtime.wording import counted
from .console import message, progress, shows_bars

if TYPE_CHECKING:
    from ..jobs.player import Done

EVERY = 5.0  # seconds between lines where stderr is not a terminal


class ShardProgress:
    """Progress on stderr, called after every shard.

    In a terminal, one line is updated. Elsewhere a line is printed for the first and the last shard, and
    every few seconds between them.
    """

    def __init__(self, shards: int, before: int, workers: int) -> None:
        """Print the number of shards. before: how many an earlier run has done."""
        self._shards, self._done, self._images = shards, before, 0
        self._started, self._printed = time.perf_counter(), -EVERY
        self._terminal = shows_bars()
        done_before = f", {before} of them already done" if before else ""
        progress(f"{counted(shards, 'shard')}{done_before}; {counted(workers, 'worker')}")

    def __call__(self, done: Done) -> None:
        """Count a shard, and print the progress. A failed shard is printed at once."""
        self._done, self._images = self._done + 1, self._images + done.images
        passed = time.perf_counter() - self._started
        if done.problem:
            message(f"{done.name} failed: {done.problem}")
        is_last = self._done == self._shards
        line = f"{self._done} of {self._shards} shards, {self._images / passed:.0f} images/s"
        if self._terminal:
            click.echo(f"\r{line}\033[K", file=sys.stderr, nl=is_last)
        elif is_last or passed - self._printed >= EVERY:
            self._printed = passed
            progress(line)
