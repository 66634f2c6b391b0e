"""Options of `bcm-edge train` about how steps are computed and what is recorded."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from .paths import PATH

if TYPE_CHECKING:
    from ..training.execution import Execution
    from ..training.options import LogOptions


def _kinds(_context: click.Context, _parameter: click.Parameter, text: str) -> tuple[str, ...]:
    return tuple(kind.strip() for kind in text.split(",")) if text else ()


def _needs_eval_every(context: click.Context, parameter: click.Parameter, share: float) -> float:
    source = context.get_parameter_source(parameter.name or "")
    if source is ParameterSource.COMMANDLINE and not context.params["eval_every"]:
        raise click.UsageError(
            "--held-out has no effect without --eval-every, and all images would be trained on; "
            "add --eval-every N, or leave --held-out out"
        )
    return share


augment_option = click.option(
    "--augment",
    default="",
    metavar="LIST",
    callback=_kinds,
    help="Random changes of the images, separated by commas: mirror (exchange left and right of half of the "
    "images), shift (move by at most 1 pixel).",
)
train_precision_option = click.option(
    "--precision",
    type=click.Choice(["fp32", "bf16"]),
    default="fp32",
    show_default=True,
    help="Number format of the network in a step. bf16 is mixed precision: faster on GPUs and on CPUs with "
    "AMX.",
)
_OPTIONS = (
    click.option(
        "--device",
        default="auto",
        show_default=True,
        metavar="NAME",
        help="Device of torch: cpu, cuda, cuda:N, or auto, which is cuda if torch finds a GPU.",
    ),
    click.option(
        "--compile",
        "compiled",
        is_flag=True,
        help="Compile the network with torch.compile: the first step takes minutes, the others less time.",
    ),
    click.option(
        "--accumulate",
        metavar="N",
        default=1,
        show_default=True,
        type=click.IntRange(1),
        help="Compute each step in N parts of equal size (in each process), which need less memory. The "
        "result is the same.",
    ),
    click.option(
        "--log-dir",
        type=PATH,
        help="Folder for losses (log.csv), curves (curve.png) and samples (default: OUTPUT with the "
        "suffix .log).",
    ),
    click.option(
        "--samples-every",
        metavar="N",
        default=500,
        show_default=True,
        type=click.IntRange(0),
        help="Write a picture of samples to the log folder every N steps; 0: only at the end.",
    ),
    click.option(
        "--eval-every",
        metavar="N",
        default=0,
        show_default=True,
        type=click.IntRange(0),
        is_eager=True,
        help="Measure the losses of held-out images every N steps; 0: never, and all images are trained on.",
    ),
    click.option(
        "--held-out",
        metavar="X",
        default=0.1,
        show_default=True,
        type=click.FloatRange(0, 0.5, min_open=True),
        callback=_needs_eval_every,
        help="Share of the images of each class that is held out for --eval-every; of the names, if the "
        "images have names.",
    ),
    click.option("--tensorboard", is_flag=True, help="Write event files for TensorBoard to the log folder."),
)


@dataclass(frozen=True)
class Settings:
    """The values of the options."""

    device: str
    compiled: bool
    accumulate: int
    log_dir: Path | None
    samples_every: int
    eval_every: int
    held_out: float
    tensorboard: bool

    @contextmanager
    def execution(self) -> Iterator[Execution]:
        """Return how the steps are computed, for a block in which the processes of the run are connected."""
        from ..training.execution import Execution
        from ..training.processes import joined

        alone = Execution(self.device, self.compiled, self.accumulate)
        with joined(alone.torch_device()) as processes:
            yield replace(alone, processes=processes)

    def logs(self, output: Path) -> LogOptions:
        """Return what is recorded. output: the checkpoint."""
        from ..training.options import LogOptions

        folder = self.log_dir or output.with_suffix(".log")
        return LogOptions(folder, self.samples_every, self.eval_every, self.tensorboard)

    def held_out_share(self) -> float:
        """Return the share of the images that is held out."""
        return self.held_out if self.eval_every else 0.0


def settings_options(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of `Settings`, and pass it the `Settings` as its argument `settings`."""

    @functools.wraps(function)
    def command(**values: Any) -> None:
        settings = Settings(**{field.name: values.pop(field.name) for field in fields(Settings)})
        function(settings=settings, **values)

    for option in reversed(_OPTIONS):
        command = option(command)
    return command
