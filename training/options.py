"""The options of a training run."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import InputError

OBJECTIVES = ("bcm", "edm")
FIRST_INTERVALS = 10  # intervals of the grid of noise levels at the first step


@dataclass(frozen=True)
class TrainOptions:
    """The options that, together with the data, determine the resulting weights. Raises InputError."""

    # Training steps.
    steps: int = 3000
    # Images per step.
    batch: int = 64
    # The highest learning rate of the run.
    learning_rate: float = 2e-3
    # Intervals of the finest grid of noise levels. More suit longer runs; 1280 in 500 steps fails.
    # The objective "edm" has no grid.
    intervals: int = 160
    # Channels of the network at full resolution, a multiple of 8.
    channels: int = 32
    seed: int = 0
    # "bcm", or "edm" for the baseline.
    objective: str = "bcm"

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "channels"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.objective not in OBJECTIVES:
            raise InputError(f"objective must be one of {', '.join(OBJECTIVES)}, not {self.objective!r}")
        if not 0 <= self.seed < 2**63:
            raise InputError(f"seed must be in [0, 2**63), not {self.seed}")
        if self.channels % 8:
            raise InputError(f"channels must be a multiple of 8, not {self.channels}")
        if self.intervals < FIRST_INTERVALS:
            raise InputError(f"intervals must be at least {FIRST_INTERVALS}, not {self.intervals}")
        if not self.learning_rate > 0:
            raise InputError(f"learning_rate must be positive, not {self.learning_rate}")
