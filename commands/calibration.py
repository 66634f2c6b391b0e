"""bcm-edge calibrate: what low precision and samplers need from data; and the options that export shares with it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from .console import require_extra

if TYPE_CHECKING:
    from ..calibration.trajectories import Samples

Function = TypeVar("Function", bound=Callable[..., Any])


def calibration_options(command: Function) -> Function:
    """Give a command the options data, size, calibration and allow_inaccurate."""
    options = (
        click.option("--data", metavar="DATA", help="For int8: digits, a FOLDER of images (sub-folders are classes), or an npz file."),
        click.option("--size", default=64, show_default=True, type=click.IntRange(1), help="Images of DATA to calibrate on, at least 32."),
        click.option("--calibration", type=click.Path(path_type=Path), help="For int8: a calibration.json made before, in place of data."),
        click.option("--allow-inaccurate", is_flag=True, help="For int8: every convolution in 8 bits, whatever the error."),
    )
    for option in reversed(options):
        command = option(command)
    return command


def read_samples(data: str, size: int, sample_shape: tuple[int, int, int], num_classes: int | None) -> Samples:
    """Calibration samples of a model from `--data` and `--size`. Raises ImageError or LabelError."""
    if data == "digits":
        require_extra("train")
    from ..calibration.trajectories import draw_samples
    from ..training.data import load_dataset

    dataset = load_dataset(data, sample_shape[1] if Path(data).is_dir() else None)
    labels = None if dataset.labels is None else dataset.labels.numpy()
    return draw_samples(dataset.images.numpy(), labels, size, dataset.name, sample_shape, num_classes)
