"""The keyword arguments that methods of BCM share, for the type checker.

The result of a method depends on its argument output_type, so its type is written as two overloads. They
refer to these classes for the other arguments. The methods themselves list all arguments.
"""

from __future__ import annotations

from typing import TypedDict

from .arguments import Labels, Seeds
from .calls import OnMove
from .schedule import Schedule


class Sampling(TypedDict, total=False):
    """What every method has that plays a schedule."""

    schedule: str | Schedule
    seed: Seeds
    labels: Labels
    on_move: OnMove | None


class Completion(TypedDict, total=False):
    """The same of methods whose default schedule depends on the model."""

    schedule: str | Schedule | None
    seed: Seeds
    labels: Labels
    on_move: OnMove | None


class Inversion(Sampling, total=False):
    """What methods have that invert images and generate from the latents."""

    inversion: str | Schedule
