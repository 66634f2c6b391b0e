"""What all commands share: options, progress on stderr, results on stdout, one JSON object with --json."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import click

from ..errors import BackendError, CheckpointError, MissingExtraError
from ..runtime.backends import backend_module
from ..runtime.backends.base import Backend
from ..runtime.checks.doctor import missing_modules
from ..runtime.checks.parity import MoveError
from ..runtime.classes import labels_of
from ..runtime.engines.store import engines
from ..runtime.log import log, timed
from ..runtime.machine.gpu import probe
from ..runtime.machine.install_hints import Extra, install_line
from ..runtime.pipeline import BCM
from ..runtime.pixels import VALUE_RANGES, parse_value_range
from ..runtime.storage.bundle import Bundle
from ..runtime.storage.manifest import PRECISIONS
from .paths import PATH, OutputPath, Writes

Function = TypeVar("Function", bound=Callable[..., Any])

MOST_SAMPLES, MOST_RECONSTRUCTED = (
    2000,
    500,
)  # generated and inverted images that a model is judged by, unless told otherwise

PRINTED = "bcm_edge.printed"  # in a context's meta: that the result is on stdout
SHOWN = "shown"  # attribute of a log record: that its text is on stderr without --verbose

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
force_option = click.option("--force", is_flag=True, help="Replace the output if it exists.")
backend_option = click.option(
    "--backend",
    default="auto",
    show_default=True,
    help="auto, tensorrt, onnxruntime, openvino, typed or null.",
)
precision_option = click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    help="Of the graphs to play (default: of an engine built here, else the most exact held).",
)
preset_option = click.option(
    "--preset", help="What a checkpoint's tensors do not tell, for a released network: imagenet64."
)
config_option = click.option(
    "--config", "config_file", type=PATH, help="The same as a JSON file with the authors' field names."
)
value_range_option = click.option(
    "--value-range",
    type=click.Choice(list(VALUE_RANGES)),
    callback=lambda _context, _parameter, text: text and parse_value_range(text),
    help="Of float images in npz and npy files. Without it, images that have no value below 0 are refused.",
)
bundle_argument = click.argument("bundle", type=PATH)


def output_option(help: str, writes: Writes = "either") -> Callable[[Function], Function]:
    return click.option("-o", "--output", required=True, type=OutputPath(writes), help=help)


def progress(line: str) -> None:
    """A line for the person watching."""
    log.info("%s", line, extra={SHOWN: True})
    click.echo(line, file=sys.stderr)  # as the stream encodes it: click would write UTF-8 to one of ASCII


def result(as_json: bool, values: dict[str, Any], text: str) -> None:
    """The command's answer: `values` as JSON, or `text` for people."""
    if context := click.get_current_context(silent=True):
        context.meta[PRINTED] = True
    click.echo(json.dumps(_json(values), allow_nan=False) if as_json else text, file=sys.stdout)


def _json(value: Any) -> Any:
    """The value as JSON has it: NaN and infinity, which JSON lacks, as null."""
    if isinstance(value, dict):
        return {str(key): _json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_json(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A plain-text table: the first column left-aligned, the others right-aligned."""
    cells = [list(columns), *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]
    lines = [
        "  ".join(
            c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in cells
    ]
    return "\n".join(
        [lines[0].rstrip(), "  ".join("─" * w for w in widths), *(line.rstrip() for line in lines[1:])]
    )


def parity_table(errors: Mapping[str, Sequence[MoveError]]) -> str:
    """One row per move at the largest batch, one column per precision with the relative L2 error."""
    largest = max(e.batch for e in next(iter(errors.values())))
    shown = [[e for e in measured if e.batch == largest] for measured in errors.values()]
    rows = [
        (e[0].schedule, e[0].move, *(f"{one.relative_l2:.1e}{'' if one.ok else ' ✗'}" for one in e))
        for e in zip(*shown, strict=True)
    ]
    return table(("schedule", "move", *(f"{precision} rel. L2".strip() for precision in errors)), rows)


@contextmanager
def move_progress(total: int, what: str) -> Iterator[Callable[..., None] | None]:
    """A progress bar over network calls, on stderr; yields the on_move callback, or None where nobody watches."""
    with timed(f"{what} ({total} NFE)"), _bar(total, what) as on_move:
        yield on_move


@contextmanager
def _bar(total: int, what: str) -> Iterator[Callable[..., None] | None]:
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn(what),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("network calls"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda *_: bar.advance(task)


def note_engines(bundle: Bundle, backend: Backend) -> None:
    """Say why a bundle's engines are not played, where there is a GPU that could."""
    if backend.name == "tensorrt" or not engines(bundle):
        return
    with suppress(BackendError):  # no GPU
        probe()
        reason = backend_module("tensorrt").unavailable(None, bundle)
        if reason:
            progress(f"note: playing on {backend.name}, since {reason}")


def parse_labels(text: str | None, n: int, bcm: BCM) -> list[int] | None:
    """The labels of n images from the option's text. Raises LabelError; absence is checked by the model."""
    if text is None:
        return None
    cycle = labels_of(text, bcm.num_classes, bcm.classes)
    return [cycle[i % len(cycle)] for i in range(n)]


def parse_precisions(text: str) -> tuple[str, ...]:
    """Precisions from a list such as fp32,int8, the most exact first; "all" is all."""
    words = {*PRECISIONS} if text == "all" else {word.strip() for word in text.split(",")}
    if unknown := words - set(PRECISIONS):
        raise click.BadParameter(
            f"unknown precision {min(unknown)!r}; choose one of {', '.join(PRECISIONS)}",
            param_hint="--precision",
        )
    return tuple(precision for precision in PRECISIONS if precision in words)


def require_extra(extra: Extra) -> None:
    """Stop with the pip line if a command's packages are not installed."""
    if missing := missing_modules(extra):
        raise MissingExtraError(f"this command needs {', '.join(missing)}; {install_line(extra)}")


def known_fields(preset: str | None, config_file: Path | None) -> dict[str, Any]:
    """The configuration fields given by the user. Raises CheckpointError."""
    from ..model.config import read_fields
    from ..model.infer_config import PRESETS

    if preset and config_file:
        raise click.UsageError("give --preset or --config, not both")
    if preset:
        if preset not in PRESETS:
            raise CheckpointError(f"no preset {preset!r}; there is {', '.join(PRESETS)}")
        return PRESETS[preset]
    return read_fields(config_file) if config_file else {}
