"""The models that an evaluation compares: an opened BCM with its schedules, and baselines on an EDM denoiser.

The baselines are Heun's method and DDIM (model/samplers.py). They start from the same noise, seed by seed,
and get the same labels. torch plays their network; the BCM is played by the backend it was opened on.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from ..model.preconditioning import Denoiser
from ..model.samplers import Solver
from ..runtime.pipeline import BCM
from ..runtime.schedule import DEFAULT_SCHEDULES, ONE_STEP, Schedule, parse_schedule
from .quality import Judge

HEUN_STEPS, DDIM_STEPS = (2, 3, 5, 9, 18, 40), (1, 2, 3, 5, 10, 20, 35)
SOLVERS = (*(Solver("heun", steps) for steps in HEUN_STEPS), *(Solver("ddim", steps) for steps in DDIM_STEPS))
TITLES = {"heun": "Heun", "ddim": "DDIM"}
YARDSTICK = Solver("heun", 18)  # the claim about generation compares with it
MOST_MOVES = 4  # moves of an inversion

Say = Callable[[str], None]  # gets one line of progress


@dataclass(frozen=True)
class Rivals:
    """An opened BCM and its baselines, and what they are compared on."""

    bcm: BCM
    judge: Judge
    # the denoiser of the baselines; None for no baselines
    denoiser: Denoiser | None
    # the first seed of all noise
    seed: int
    say: Say

    @property
    def baselines(self) -> list[tuple[Solver, Denoiser]]:
        """All solvers on the denoiser; empty without a denoiser."""
        return [(solver, self.denoiser) for solver in SOLVERS] if self.denoiser else []

    @property
    def generations(self) -> dict[str, Schedule]:
        """The bundle's schedules from noise to an image, in the order of network calls."""
        schedules = self._schedules()
        return _by_calls({name: s for name, s in schedules.items() if not s.from_image})

    @property
    def inversions(self) -> dict[str, Schedule]:
        """The bundle's schedules from an image to noise, in the order of network calls.

        Longer ones follow, made by inserting levels into the longest.
        """
        inversions = {name: s for name, s in self._schedules().items() if s.inverts}
        if not inversions:
            inversions = {name: parse_schedule(DEFAULT_SCHEDULES[name]) for name in ("invert-1", "invert-2")}
        longest = max(inversions.values(), key=lambda schedule: schedule.nfe)
        while longest.nfe < MOST_MOVES:
            longest = with_level_inserted(longest)
            inversions[f"{longest.nfe} moves, levels inserted"] = longest
        return _by_calls(inversions)

    @property
    def returns(self) -> dict[str, Schedule]:
        """Ways back from a latent: one step, and the bundle's first two-call schedule without injections.

        Injected noise is not part of a latent, so schedules with injections are left out.
        """
        two = {name: s for name, s in self.generations.items() if s.nfe == len(s.steps) == 2}
        return {"one-step": ONE_STEP, **dict(list(two.items())[:1])}

    def _schedules(self) -> dict[str, Schedule]:
        return {name: parse_schedule(text) for name, text in self.bcm.schedules.items()}


def _by_calls(schedules: dict[str, Schedule]) -> dict[str, Schedule]:
    return dict(sorted(schedules.items(), key=lambda item: item[1].nfe))


def with_level_inserted(inversion: Schedule) -> Schedule:
    """Return the inversion with one more move.

    The new level is the geometric mean, to three digits, of the two neighbouring levels with the largest
    ratio.
    """
    levels = [inversion.start, *(move.u for move in inversion.moves)]
    widest = max(range(inversion.nfe), key=lambda i: levels[i + 1] / levels[i])
    middle = float(f"{math.sqrt(levels[widest] * levels[widest + 1]):.3g}")
    levels.insert(widest + 1, middle)
    return parse_schedule(f"+{levels[0]!r} {'>'.join(map(repr, levels))}")


def title(solver: Solver) -> str:
    """Return the name of a solver in reports, such as "Heun 18"."""
    return f"{TITLES[solver.name]} {solver.steps}"


def calls(n: int) -> str:
    """Return "1 call", "2 calls", …"""
    return f"{n} call{'' if n == 1 else 's'}"
