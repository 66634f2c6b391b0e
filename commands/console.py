"""The output of a command: progress on stderr; the result on stdout, as text or one JSON object."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TextIO

import click

from ..errors import BackendError, ParityError
from ..runtime.backends import backend_module
from ..runtime.backends.base import Backend
from ..runtime.calls import OnMove
from ..runtime.checks.parity import MoveError
from ..runtime.engines.store import engines
from ..runtime.log import log, timed
from ..runtime.machine.gpu import probe
from ..runtime.storage.bundle import Bundle
from .tables import table
from .terminal import columns_of, has_colours, shown

# Keys of a click context's meta.
PRINTED = "bcm_edge.printed"  # set when the result is on stdout
QUIET = "bcm_edge.quiet"  # whether -q is among the arguments
VERBOSE = "bcm_edge.verbose"  # whether -v is among the arguments

PERIOD = 30.0  # seconds between two stages that are printed where stderr is no terminal
SHOWN = "shown"  # attribute of a log record whose text is already on stderr


def progress(line: str) -> None:
    """Print a line on stderr, unless the command has -q, and log it."""
    if is_quiet():
        log.info("%s", line)
    else:
        message(line)


def is_quiet() -> bool:
    """Return whether the command has -q."""
    return _has(QUIET)


def _has(option: str) -> bool:
    context = click.get_current_context(silent=True)
    return context is not None and context.meta.get(option, False)


def shows_bars() -> bool:
    """Return whether progress is shown as a line that changes: on a terminal, without -q."""
    return sys.stderr.isatty() and not is_quiet()


def message(line: str) -> None:
    """Print a line on stderr, also with -q, and log it: an error, or what is missing in the result."""
    log.info("%s", line, extra={SHOWN: True})
    _print(line, sys.stderr)


def _print(text: str, stream: TextIO) -> None:
    # With `file`, the stream's own encoding is used; click alone would write UTF-8 to an ASCII terminal.
    click.echo(shown(text, stream), file=stream, color=has_colours(stream))


def detail(line: str) -> None:
    """Log a line, which -v prints on stderr: what a user reads only in search of a reason."""
    log.info("%s", line)


def note(line: str) -> None:
    """Print a note on stderr: something that the user may want to know and that does not stop the command."""
    progress(f"note: {line}")


def result(as_json: bool, values: dict[str, Any], text: str) -> None:
    """Print the result of the command on stdout: `values` as one JSON object with --json, else `text`."""
    if context := click.get_current_context(silent=True):
        context.meta[PRINTED] = True
    if as_json:
        click.echo(json.dumps(_json(values), allow_nan=False), file=sys.stdout)
    else:
        _print(text, sys.stdout)


def _json(value: Any) -> Any:
    """Return the value as JSON can represent it: NaN and infinity become null."""
    if isinstance(value, dict):
        return {str(key): _json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_json(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def parity_table(errors: Mapping[str, Sequence[MoveError]]) -> str:
    """Return a table of relative L2 errors at the largest batch: a row per move, a column per precision."""
    largest = max(error.batch for error in next(iter(errors.values())))
    columns = [[error for error in measured if error.batch == largest] for measured in errors.values()]
    rows = []
    for move in zip(*columns, strict=True):
        cells = [f"{error.relative_l2:.1e}{'' if error.ok else ' ✗'}" for error in move]
        rows.append((move[0].schedule, move[0].move, *cells))
    return f"relative L2 errors:\n{table(('schedule', 'move', *errors), rows)}"


def parity_line(errors: Sequence[MoveError]) -> str:
    """Return the largest relative L2 error of each direction, over all batch sizes, and the verdict."""
    directions = []
    for direction in ("forward", "inverse"):
        if played := [error.relative_l2 for error in errors if error.graph == direction]:
            directions.append(f"{direction} {max(played):.1e}")
    mark = "✓" if all(error.ok for error in errors) else "✗"
    return f"{', '.join(directions)} {mark}"


@contextmanager
def parity_table_of_failure(precision: str = "") -> Iterator[None]:
    """Print the errors of all moves if the block raises ParityError. precision: the heading of the table."""
    try:
        yield
    except ParityError as error:
        if error.errors:
            message(parity_table({precision: error.errors}))
        raise


@contextmanager
def stages() -> Iterator[Callable[[str], None]]:
    """Show the stages of a long command; -v and the log have all of them.

    Yields the function to call with a line per stage. A terminal shows the latest one in a line that changes.
    Elsewhere a stage is printed if no other was for PERIOD seconds.
    """
    printed = time.monotonic()

    def report(line: str) -> None:
        nonlocal printed
        detail(line)
        if _has(VERBOSE):  # it is printed
            return
        if shows_bars():
            width = (columns_of(sys.stderr) or 80) - 1
            click.echo(f"\r{line[:width]}\033[K", file=sys.stderr, nl=False)
        elif not is_quiet() and time.monotonic() - printed >= PERIOD:
            printed = time.monotonic()
            click.echo(line, file=sys.stderr)

    try:
        yield report
    finally:
        if shows_bars():
            click.echo("\r\033[K", file=sys.stderr, nl=False)


@contextmanager
def move_progress(title: str) -> Iterator[OnMove | None]:
    """Show a progress bar over network calls on stderr, if it is a terminal and the command has no -q.

    Yields the argument on_move for a method of BCM; None where no bar is shown.
    """
    with timed(title), _bar(title) as on_move:
        yield on_move


@contextmanager
def _bar(title: str) -> Iterator[OnMove | None]:
    if not shows_bars():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn(title),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("network calls"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=None)
        yield lambda call: bar.update(task, completed=call.index + 1, total=call.total)


def note_engines(bundle: Bundle, backend: Backend, requested: str, device: str | None) -> None:
    """Print why the engines of a bundle are not used, if it has engines and this machine has a GPU.

    Nothing is printed if the user asked for a backend (requested, "auto" otherwise) or a device.
    """
    if requested != "auto" or device or backend.name == "tensorrt" or not engines(bundle):
        return
    with suppress(BackendError):  # no GPU
        probe()
        reason = backend_module("tensorrt").unavailable(None, bundle)
        if reason:
            note(f"the bundle's engines are not used, {backend.name} runs instead: {reason}")
