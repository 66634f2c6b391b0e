"""Schedules: short programs of moves and noise injections, with the text form people type and read back.

    "80>0.002"                        one move from noise level 80 to 0.002: generation in one network call (NFE)
    "80>2.4>0.002"                    two moves, nothing added between
    "80>0.002 +0.1 0.1>1.2>0.002"     one move, then fresh noise of std 0.1, amplified to 1.2 by the network, and down again
    "+0.07 0.07>15>80"                inversion: noise of std 0.07 on an image, then up to 80

`a>b>c` are moves; `+σ` adds fresh Gaussian noise of std σ and names the level the state then has. A chain of moves starts at
the level where the program stands. Levels lie in [0.002, 80].
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from ..errors import ScheduleError

SIGMA_MIN = 0.002  # an image
SIGMA_MAX = 80.0  # pure noise


@dataclass(frozen=True)
class Move:
    """One network call: x ← f(x, t, u). Down (u < t) towards the image, up (u > t) towards the noise."""

    t: float
    u: float

    @property
    def graph(self) -> str:
        """The graph of a bundle that plays this move."""
        return "inverse" if self.u > self.t else "forward"

    def __str__(self) -> str:
        return f"{_text(self.t)}>{_text(self.u)}"


@dataclass(frozen=True)
class Inject:
    """x ← x + σ z with fresh z ~ N(0, 1); the state then counts as being at level σ."""

    sigma: float

    def __str__(self) -> str:
        return f"+{_text(self.sigma)}"


@dataclass(frozen=True)
class Schedule:
    """A valid program. Build one with `parse_schedule`; `str()` gives the text back; `a + b` plays b after a."""

    steps: tuple[Move | Inject, ...]

    @property
    def moves(self) -> tuple[Move, ...]:
        return tuple(s for s in self.steps if isinstance(s, Move))

    @property
    def nfe(self) -> int:
        """Network function evaluations: the number of moves."""
        return len(self.moves)

    @property
    def from_image(self) -> bool:
        """Whether the program starts from an image (with an injection) rather than from noise or a latent."""
        return isinstance(self.steps[0], Inject)

    @property
    def start(self) -> float:
        """The level of the state the program begins with; an injection names it."""
        first = self.steps[0]
        return first.sigma if isinstance(first, Inject) else first.t

    @property
    def end(self) -> float:
        """The level of the state the program ends with."""
        return self.moves[-1].u

    def __add__(self, other: Schedule) -> Schedule:
        if not other.from_image and other.start != self.end:
            raise ScheduleError(
                f"schedule {str(other)!r} starts at level {_text(other.start)}, but {str(self)!r} ends at {_text(self.end)}"
            )
        return Schedule(self.steps + other.steps)

    def __str__(self) -> str:
        words: list[str] = []
        level = None  # where the chain being written stands, if one is open
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
    """The schedule a text means. Raises ScheduleError pointing at the column where it goes wrong."""
    steps: list[Move | Inject] = []
    level: float | None = None  # None: the program has not begun
    for word in re.finditer(r"\S+", text):
        column = word.start()
        if word[0].startswith("+"):
            if steps and isinstance(steps[-1], Inject):
                raise _at(text, column, "two injections in a row; write one with the level you want")
            level = _level(text, word[0][1:], column + 1)
            steps.append(Inject(level))
            continue
        values, columns = [], []
        for part in word[0].split(">"):
            values.append(_level(text, part, column))
            columns.append(column)
            column += len(part) + 1
        if len(values) < 2:
            raise _at(text, columns[0], "a move needs two levels, as in 80>0.002")
        if level is not None and values[0] != level:
            raise _at(
                text,
                columns[0],
                f"the program stands at level {_text(level)} here, so the next move starts there",
            )
        for t, u, u_column in zip(values, values[1:], columns[1:], strict=False):
            if t == u:
                raise _at(text, u_column, f"a move from {_text(t)} to itself does nothing")
            steps.append(Move(t, u))
        level = values[-1]
    if not steps:
        raise _at(text, 0, "empty; an example is 80>2.4>0.002")
    if isinstance(steps[-1], Inject):
        raise _at(text, len(text.rstrip()), "noise is added, but no move follows")
    return Schedule(tuple(steps))


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
    """The shortest decimal that reads back as this level: 80, 2.4, 0.002."""
    return repr(float(level)).removesuffix(".0")


def _at(text: str, column: int, problem: str) -> ScheduleError:
    return ScheduleError(f"schedule: {problem} (column {column + 1})\n  {text}\n  {' ' * column}^")


# The settings the authors released for ImageNet-64; a model without measured schedules of its own starts from these.
DEFAULT_SCHEDULES = {
    "one-step": "80>0.002",
    "ancestral-2": "80>2.4>0.002",
    "zigzag-3": "80>0.002 +0.1 0.1>1.2>0.002",
    "mixture-4": "80>3>0.002 +0.12 0.12>0.4>0.002",
    "invert-1": "+0.07 0.07>80",
    "invert-2": "+0.07 0.07>15>80",
}
