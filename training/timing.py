"""The remaining time of a training run."""

from __future__ import annotations

from collections import deque

LATEST = 100  # steps whose mean duration is that of the remaining ones


class Estimate:
    """An estimate of the remaining time, which includes validation and samples, also those at the end.

    steps: steps of the whole run. samples_every, eval_every: steps between sheets of samples and between
    measurements of validation losses, or 0 for none; both follow after the last step, samples in any case.
    seconds_per_sheet: the estimated duration of a sheet, until one is made.
    compiles: whether the first step compiles the network, which takes as long as hundreds of steps.
    """

    def __init__(
        self,
        steps: int,
        samples_every: int,
        eval_every: int,
        seconds_per_sheet: float,
        compiles: bool = False,
    ) -> None:
        self.steps = steps
        self.samples_every = samples_every
        self.eval_every = eval_every
        self.seconds_per_sheet = seconds_per_sheet
        self.seconds_per_eval = 0.0  # unknown until the first one
        self._compiles = compiles
        self._latest: deque[float] = deque(maxlen=LATEST)
        self._count = 0

    def add_step(self, seconds: float) -> None:
        """Note the duration of a step. The first one, which is slower, counts only until the second."""
        if self._count == 1:
            self._latest.clear()
        self._count += 1
        self._latest.append(seconds)

    def seconds_left(self, done: int) -> float | None:
        """Return the remaining time after `done` steps; None if it cannot be estimated yet."""
        if self._compiles and self._count == 1 and done < self.steps:
            return None
        steps = (self.steps - done) * sum(self._latest) / max(1, len(self._latest))
        sheets = 1 + self._occasions(self.samples_every, done)
        evals = self._occasions(self.eval_every, done)
        if self.eval_every and done < self.steps:
            evals += 1
        return steps + sheets * self.seconds_per_sheet + evals * self.seconds_per_eval

    def _occasions(self, every: int, done: int) -> int:
        """Return how many steps are multiples of `every`, after `done` and before the last one."""
        return max(0, (self.steps - 1) // every - done // every) if every else 0
