"""The keyword arguments that several methods of BCM have, for the type checker.

The type of a method's result depends on its argument output_type. The method therefore has two overloads,
which use these classes for the other keyword arguments. The method itself lists all of them.
"""

from __future__ import annotations

from typing import TypedDict

from .arguments import Labels, Seeds
from .calls import OnMove
from .schedule import Schedule


class Sampling(TypedDict, total=False):
    """Arguments of methods that play a schedule."""

    schedule: str | Schedule
    seed: Seeds
    labels: Labels
    on_move: OnMove | None


class Completion(TypedDict, total=False):
    """Arguments of methods whose default schedule depends on the model."""

    schedule: str | Schedule | None
    seed: Seeds
    labels: Labels
    on_move: OnMove | None


class Inversion(Sampling, total=False):
    """Arguments of methods that invert images and generate from the latents."""

    inversion: str | Schedule
