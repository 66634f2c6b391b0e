"""The options --schedule and --inversion, and the schedules that they name, checked for their direction."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from ..runtime.pipeline import BCM
from ..runtime.schedule import Schedule
from ..runtime.storage.bundle import Bundle
from ..runtime.tasks.basic import check_ends_at_image, check_generates, check_inverts
from ..runtime.tasks.constrained import check_fills_in
from ..runtime.tasks.restoration import check_restores

schedule_option = click.option(
    "--schedule",
    default="one-step",
    show_default=True,
    help="Schedule from noise to the image: a name, or levels such as '80>2.4>0.002'.",
)
inversion_option = click.option(
    "--inversion",
    metavar="SCHEDULE",
    default="invert-2",
    show_default=True,
    help="Schedule from the image to noise: a name, or levels such as '+0.07 0.07>15>80'.",
)
restoration_option = click.option(
    "--schedule",
    help="Schedule from an image to an image (default: '+X X>5>0.002', where X is the strength).",
)


def completion_option(default: Schedule | None = None, default_in_words: str = "") -> Callable[..., Any]:
    """Return the option --schedule of commands that complete images.

    default_in_words: the default, where it depends on the model.
    """
    text = f"Schedule from noise that returns to the image any number of times{default_in_words}."
    return click.option(
        "--schedule", default=default and str(default), show_default=default is not None, help=text
    )


def to_noise(model: BCM | Bundle, inversion: str) -> Schedule:
    """Return the schedule of --inversion. Raises ScheduleError unless it leads from an image to noise."""
    return _checked(model, inversion, check_inverts)


def to_image(model: BCM | Bundle, schedule: str) -> Schedule:
    """Return the schedule of --schedule. Raises ScheduleError unless it leads from noise to an image."""
    return _checked(model, schedule, check_generates)


def completing(model: BCM, schedule: str) -> Schedule:
    """Return the schedule of --schedule. Raises ScheduleError unless it can complete images."""
    return _checked(model, schedule, check_fills_in)


def restoring(model: BCM, schedule: str) -> Schedule:
    """Return the schedule of --schedule. Raises ScheduleError unless it leads from an image to an image."""
    return _checked(model, schedule, check_restores)


def timed(bundle: Bundle, schedule: str | None, inversion: str | None) -> Schedule:
    """Return the program of --schedule, of --inversion, or of the inversion and then the schedule.

    Raises ScheduleError for a schedule of another direction.
    """
    if inversion is None:
        return _checked(bundle, schedule or "one-step", check_ends_at_image)
    up = to_noise(bundle, inversion)
    return up + bundle.schedule(schedule) if schedule else up


def _checked(model: BCM | Bundle, text: str, check: Callable[[Schedule], None]) -> Schedule:
    schedule = model.schedule(text)
    check(schedule)
    return schedule
