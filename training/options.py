"""The options of a training run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from .augmentation import KINDS

OBJECTIVES = ("bcm", "edm")
PRECISIONS = ("fp32", "bf16")
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
    # Number format of the network in a step: "fp32", or "bf16" for mixed precision by autocast. Parameters,
    # losses and the arithmetic around the network are float32 in both.
    precision: str = "fp32"
    # Random changes of the images, out of "mirror" and "shift" (see `augmented`).
    augment: tuple[str, ...] = ()
    # Share of the images that is held out to measure validation losses, in [0, 0.5].
    held_out: float = 0.0
    # Resolutions of the network, each half of the one before; None: until 4 to 7 pixels a side are left.
    levels: int | None = None

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "channels", "levels"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} must be at least 1, not {value}")
        if self.objective not in OBJECTIVES:
            raise InputError(f"objective must be one of {', '.join(OBJECTIVES)}, not {self.objective!r}")
        if self.precision not in PRECISIONS:
            raise InputError(f"precision must be one of {', '.join(PRECISIONS)}, not {self.precision!r}")
        for kind in self.augment:
            if kind not in KINDS:
                raise InputError(f"augment must be a list of {', '.join(KINDS)}, not {kind!r}")
        if not 0 <= self.held_out <= 0.5:
            raise InputError(f"held_out must be in [0, 0.5], not {self.held_out}")
        if not 0 <= self.seed < 2**63:
            raise InputError(f"seed must be in [0, 2**63), not {self.seed}")
        if self.channels % 8:
            raise InputError(f"channels must be a multiple of 8, not {self.channels}")
        if self.intervals < FIRST_INTERVALS:
            raise InputError(f"intervals must be at least {FIRST_INTERVALS}, not {self.intervals}")
        if not self.learning_rate > 0:
            raise InputError(f"learning_rate must be positive, not {self.learning_rate}")


@dataclass(frozen=True)
class LogOptions:
    """What is recorded during a run."""

    # The folder of curves and samples, or None for none.
    folder: Path | None = None
    # Steps between sheets of samples; 0 for none.
    samples_every: int = 0
    # Steps between measurements of the losses of held-out images; 0 for none.
    eval_every: int = 0
    # Write event files of TensorBoard as well.
    tensorboard: bool = False
