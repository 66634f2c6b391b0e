"""Schedules: short programs of moves and noise injections, with the text form that users type.

    "80>0.002"                        generation in one network call, from noise level 80 to 0.002
    "80>2.4>0.002"                    two moves, without noise between them
    "80>0.002 +0.1 0.1>1.2>0.002"     one move; noise of level 0.1, amplified to 1.2; down again
    "+0.07 0.07>15>80"                inversion: noise of level 0.07 on an image, then up to level 80

`a>b>c` are moves. `+σ` adds fresh Gaussian noise of standard deviation σ; the state is at level σ afterwards.
A move starts at the level of the state before it. Levels lie in [0.002, 80].
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from ..errors import ScheduleError
from .wording import argument

SIGMA_MIN = 0.002  # the noise level of an image
SIGMA_MAX = 80.0  # the noise level of pure noise
SIGMA_DATA = 0.5  # the standard deviation of images in [-1, 1] that the preconditioning assumes


@dataclass(frozen=True)
class Move:
    """One network call: x ← f(x, t, u). It goes towards the image if u < t, towards the noise if u > t."""

    t: float  # the noise level of the input
    u: float  # the noise level of the output

    @property
    def graph(self) -> str:
        """The graph of a bundle that computes this move: "forward" or "inverse"."""
        return "inverse" if self.u > self.t else "forward"

    def __str__(self) -> str:
        return f"{_text(self.t)}>{_text(self.u)}"


@dataclass(frozen=True)
class Inject:
    """x ← x + σ z with fresh z ~ N(0, 1). The noise level of the state is σ afterwards."""

    sigma: float

    def __str__(self) -> str:
        return f"+{_text(self.sigma)}"


@dataclass(frozen=True)
class Schedule:
    """A valid program.

    `parse_schedule` makes one from text, `str()` gives the text back, and `a + b` plays b after a.
    """

    steps: tuple[Move | Inject, ...]

    @property
    def moves(self) -> tuple[Move, ...]:
        """The moves, in order, without the injections between them."""
        return tuple(step for step in self.steps if isinstance(step, Move))

    @property
    def nfe(self) -> int:
        """Network function evaluations: the number of moves."""
        return len(self.moves)

    @property
    def from_image(self) -> bool:
        """Whether the program starts from an image, with an injection, and not from noise."""
        return isinstance(self.steps[0], Inject)

    @property
    def start(self) -> float:
        """The noise level at which the program begins."""
        first = self.steps[0]
        return first.sigma if isinstance(first, Inject) else first.t

    @property
    def end(self) -> float:
        """The noise level at which the program ends."""
        return self.moves[-1].u

    @property
    def generates(self) -> bool:
        """Whether the program leads from pure noise (80) to an image (0.002)."""
        return not self.from_image and (self.start, self.end) == (SIGMA_MAX, SIGMA_MIN)

    @property
    def inverts(self) -> bool:
        """Whether the program leads from an image to pure noise (80)."""
        return self.from_image and self.end == SIGMA_MAX

    @property
    def restores(self) -> bool:
        """Whether the program leads from an image to an image (0.002)."""
        return self.from_image and self.end == SIGMA_MIN

    @property
    def fills_in(self) -> bool:
        """Whether the program leads from noise to an image (0.002), as those for partly known images do."""
        return not self.from_image and self.end == SIGMA_MIN

    def __add__(self, other: Schedule) -> Schedule:
        if not other.from_image and other.start != self.end:
            raise ScheduleError(
                f"schedule {str(other)!r} starts at level {_text(other.start)}, but {str(self)!r} ends at "
                f"level {_text(self.end)}"
            )
        return Schedule(self.steps + other.steps)

    def __str__(self) -> str:
        words: list[str] = []
        level = None  # the level at which the last word ends, if another move can be appended to it
        for step in self.steps:
            if isinstance(step, Inject):
                words.append(str(step))
                level = None
            elif level == step.t:
                words[-1] += f">{_text(step.u)}"
                level = step.u
            else:
                words.append(str(step))
                level = step.u
        return " ".join(words)


def parse_schedule(text: str) -> Schedule:
    """Return the schedule that a text describes. Raises ScheduleError, which points at the wrong column."""
    steps: list[Move | Inject] = []
    level: float | None = None  # None: the program has not begun
    for word in re.finditer(r"\S+", text):
        column = word.start()
        if word[0].startswith("+"):
            if steps and isinstance(steps[-1], Inject):
                raise _at(text, column, "two injections follow each other; write one with the level you want")
            level = _level(text, word[0][1:], column + 1)
            steps.append(Inject(level))
            continue
        values, columns = [], []
        for part in word[0].split(">"):
            values.append(_level(text, part, column))
            columns.append(column)
            column += len(part) + 1
        if len(values) < 2:
            raise _at(text, columns[0], "a move needs two levels, for example 80>0.002")
        if level is not None and values[0] != level:
            raise _at(
                text,
                columns[0],
                f"the state is at level {_text(level)} here, so the next move must start at this level",
            )
        for t, u, u_column in zip(values, values[1:], columns[1:], strict=False):
            if t == u:
                raise _at(text, u_column, f"a move from {_text(t)} to {_text(u)} does nothing")
            steps.append(Move(t, u))
        level = values[-1]
    if not steps:
        raise _at(text, 0, "it is empty; an example is 80>2.4>0.002")
    if isinstance(steps[-1], Inject):
        raise _at(
            text, len(text.rstrip()), "added noise must be followed by a move, such as '+0.1 0.1>0.002'"
        )
    return Schedule(tuple(steps))


def inversion_advice(schedule: Schedule) -> str:
    """Return the end of a message about a schedule that must lead to an image; "" if it is no inversion."""
    if not schedule.inverts:
        return ""
    return f"; it leads to noise, so give it as {argument('inversion=', '--inversion')}"


def _level(text: str, word: str, column: int) -> float:
    if not word:
        raise _at(text, column, "a noise level is missing")
    try:
        value = float(word)
    except ValueError:
        raise _at(text, column, f"{word!r} is not a noise level") from None
    if not (math.isfinite(value) and SIGMA_MIN <= value <= SIGMA_MAX):
        raise _at(text, column, f"level {word} is outside [{_text(SIGMA_MIN)}, {_text(SIGMA_MAX)}]")
    return value


def _text(level: float) -> str:
    """The shortest decimal number that is read back as this level: 80, 2.4, 0.002."""
    return repr(float(level)).removesuffix(".0")


def _at(text: str, column: int, problem: str) -> ScheduleError:
    return ScheduleError(f"schedule: {problem} (column {column + 1})\n  {text}\n  {' ' * column}^")


# The schedules that the authors published for ImageNet-64. A model without measured schedules gets these.
DEFAULT_SCHEDULES = {
    "one-step": "80>0.002",
    "ancestral-2": "80>2.4>0.002",
    "zigzag-3": "80>0.002 +0.1 0.1>1.2>0.002",
    "mixture-4": "80>3>0.002 +0.12 0.12>0.4>0.002",
    "invert-1": "+0.07 0.07>80",
    "invert-2": "+0.07 0.07>15>80",
}
ONE_STEP = parse_schedule(DEFAULT_SCHEDULES["one-step"])
# In measurements, ends the name of an inversion that is followed by one step back to the image.
ONE_STEP_BACK = ", one-step"
