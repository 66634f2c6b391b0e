"""Options and arguments that several commands share, and the values they are parsed into."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from ..errors import CheckpointError
from ..runtime.backends import MODULES, summaries
from ..runtime.batches import BATCH
from ..runtime.classes import repeated_labels
from ..runtime.machine.resources import MOST_THREADS
from ..runtime.pipeline import BCM
from ..runtime.pixels import VALUE_RANGES, ValueRange, parse_value_range
from ..runtime.storage.manifest import ON_CPUS, PRECISIONS
from .paths import PATH, OutputPath, Writes

Function = TypeVar("Function", bound=Callable[..., Any])

MOST_SAMPLES = 2000  # generated images that a model is judged by, unless --samples is given
MOST_RECONSTRUCTED = 500  # inverted images that a model is judged by, unless --reconstructed is given


def _value_range(_context: click.Context, _parameter: click.Parameter, text: str | None) -> ValueRange:
    return parse_value_range(text) if text else None


def _one_text(_context: click.Context, parameter: click.Parameter, texts: tuple[str, ...]) -> str | None:
    if len(texts) > 1:
        option = "/".join(parameter.opts)
        raise click.UsageError(f"{option} is given twice; give a list: {parameter.opts[0]} {','.join(texts)}")
    return texts[0] if texts else None


bundle_argument = click.argument("bundle", type=PATH)
json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print the result as one JSON object on stdout."
)
force_option = click.option("--force", is_flag=True, help="Replace the output if it exists.")
backend_option = click.option(
    "--backend",
    metavar="NAME",
    shell_complete=lambda _context, _option, start: [
        name for name in ("auto", *MODULES) if name.startswith(start)
    ],
    default="auto",
    show_default=True,
    help=f"The library that computes: auto (the fastest that runs here), {summaries()}.",
)
precision_option = click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    help="Number format to compute in (default: that of an engine built for this GPU, else the most "
    "exact one in the bundle).",
)
threads_option = click.option(
    "--threads",
    metavar="N",
    type=click.IntRange(1, MOST_THREADS),
    help="Number of CPU threads (default: $BCM_EDGE_THREADS, else the processors of this process).",
)
device_option = click.option(
    "--device",
    metavar="NAME",
    help="Device that computes: cpu, gpu (the first NVIDIA GPU) or cuda:N (default: that of the backend).",
)
batch_option = click.option(
    "--batch",
    metavar="N",
    type=click.IntRange(1),
    help=f"Maximum number of images per network call (default: {BATCH}; with an engine, its maximum).",
)
scale_option = click.option(
    "--scale",
    metavar="N",
    type=click.IntRange(1),
    help="Enlarge the images in a picture by this whole factor; 1 writes the plain pixels, without labels "
    "(default: to at least 128 pixels). Ignored for .npz and folders.",
)
metadata_option = click.option(
    "--metadata/--no-metadata",
    default=True,
    help="Whether PNG files store how they were made: command, seeds, labels, schedule, precision, hash of "
    "the bundle (default: yes).",
)
preset_option = click.option(
    "--preset",
    metavar="NAME",
    help="Configuration of a released network, for what its weights file does not contain: imagenet64, "
    "lsun256.",
)
config_option = click.option(
    "--config",
    "config_file",
    type=PATH,
    help="The same from a JSON file, with the field names of the official code.",
)
value_range_option = click.option(
    "--value-range",
    type=click.Choice(list(VALUE_RANGES)),
    callback=_value_range,
    help="Range of float images read from npz and npy files. Without it, float images that have no value "
    "below 0 are refused, because they may be in either range.",
)


def precisions_option(default: str, help: str) -> Callable[[Function], Function]:
    """Return the option --precision of commands that accept a list of precisions."""
    return click.option(
        "--precision",
        "precisions",
        default=default,
        show_default=True,
        metavar="LIST",
        shell_complete=_lists_of_precisions,
        help=help,
    )


def _lists_of_precisions(_context: click.Context, _option: click.Parameter, start: str) -> list[str]:
    """Return how a list of precisions such as "fp32,f" may continue, for the completion of a shell."""
    before, comma, last = start.rpartition(",")
    names = PRECISIONS if comma else (*PRECISIONS, "all")
    listed = before.split(",")
    return [f"{before}{comma}{name}" for name in names if name.startswith(last) and name not in listed]


def output_option(help: str, writes: Writes = "either") -> Callable[[Function], Function]:
    """Return the required option -o/--output. writes: what the output is, a file, a folder or either."""
    return click.option("-o", "--output", required=True, type=OutputPath(writes), help=help)


def refused_option(name: str, advice: str) -> Callable[[Function], Function]:
    """Return an option that other commands have, which fails with an advice in this one; --help omits it."""

    def refuse(_context: click.Context, _parameter: click.Parameter, value: str | None) -> None:
        if value is not None:
            raise click.UsageError(advice)

    return click.option(name, hidden=True, expose_value=False, callback=refuse)


def label_option(help_text: str) -> Callable[[Function], Function]:
    """Return the option --label. Given twice, it is a usage error: one of the two would be lost."""
    return click.option(
        "--label",
        "--class",
        "label",
        metavar="LABELS",
        multiple=True,
        callback=_one_text,
        help=help_text,
    )


def parse_labels(text: str | None, n: int, bcm: BCM) -> list[int] | None:
    """Return the labels of n images from the text of --label, repeated in order; None without the option.

    Raises LabelError. Whether the model needs labels is checked when it runs.
    """
    return None if text is None else repeated_labels(text, n, bcm.num_classes, bcm.classes)


def parse_precisions(
    text: str, choices: Sequence[str] = PRECISIONS, every: Sequence[str] = ON_CPUS
) -> tuple[str, ...]:
    """Return the precisions in a list such as "fp32,int8" in the order of `choices`; "all" means `every`.

    Raises click.BadParameter for a precision that is not among the choices.
    """
    words = {*every} if text == "all" else {word.strip() for word in text.split(",")}
    if unknown := words - set(choices):
        raise click.BadParameter(
            f"unknown precision {min(unknown)!r}; choose from {', '.join(choices)}, all",
            param_hint="--precision",
        )
    return tuple(precision for precision in choices if precision in words)


def known_fields(preset: str | None, config_file: Path | None) -> dict[str, Any]:
    """Return the configuration fields from --preset or --config. Raises CheckpointError, click.UsageError."""
    from ..model.config import read_fields
    from ..model.infer_config import NO_PRESETS, PRESETS

    if preset and config_file:
        raise click.UsageError("--preset and --config cannot be combined; give one of them")
    if preset:
        if preset in NO_PRESETS:
            raise CheckpointError(f"--preset {preset}: {NO_PRESETS[preset]}")
        if preset not in PRESETS:
            raise CheckpointError(f"--preset: unknown preset {preset!r}; use {', '.join(PRESETS)}")
        return PRESETS[preset]
    return read_fields(config_file) if config_file else {}
