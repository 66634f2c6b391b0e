"""The options -v, -q and --log-file: more messages on stderr, fewer, and the same in a file.

They can be given before and after the name of a command. The file also has the traceback of an
error; on stderr an error is one line.
"""

from __future__ import annotations

import contextlib
import logging
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from ..errors import OutputError
from ..runtime.log import home_folder, log, without_home
from .console import QUIET, SHOWN, VERBOSE
from .options import Function
from .paths import OutputPath

ARGUMENTS = "bcm_edge.arguments"  # key of a click context's meta: the arguments of the program
HEADER = "log of bcm-edge"  # the first words of every log file

_VERBOSE: dict[str, Any] = {
    "is_flag": True,
    "help": "Print on stderr what is used and why: versions, backend, cache, times.",
}
_QUIET: dict[str, Any] = {
    "is_flag": True,
    "help": "Print no progress and no notes on stderr, only errors.",
}
_LOG_FILE: dict[str, Any] = {
    "type": OutputPath("file", "logs"),
    "metavar": "FILE",
    "help": "Append what -v prints to FILE, with the traceback of an error: for bug reports.",
}


def listen(context: click.Context, verbose: bool, quiet: bool, log_file: Path | None) -> None:
    """Print as much on stderr as the options say, and write the log until the command ends.

    Raises click.UsageError for -v with -q, OutputError if the log file cannot be written.
    """
    if context.resilient_parsing:  # a shell asks how the line may continue
        return
    if verbose and not context.meta.get(VERBOSE):
        _start(context, _Terminal())
    context.meta[VERBOSE] = context.meta.get(VERBOSE, False) or verbose
    context.meta[QUIET] = context.meta.get(QUIET, False) or quiet
    if context.meta[QUIET] and context.meta[VERBOSE]:
        raise click.UsageError("-q and -v cannot be combined; give one of them", context)
    if log_file is None or _is_open(log_file):
        return
    try:
        _start(context, _File(log_file))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise OutputError(
            f"{log_file}: the log file cannot be written ({reason}); give another --log-file"
        ) from error


def _is_open(log_file: Path) -> bool:
    return any(isinstance(handler, _File) and handler.path == log_file for handler in log.handlers)


def output_options(group: Function) -> Function:
    """Give the group of commands the options. Its function passes their values to `listen`."""
    group = click.option("--log-file", **_LOG_FILE)(group)
    group = click.option("-q", "--quiet", **_QUIET)(group)
    return click.option("-v", "--verbose", **_VERBOSE)(group)


# Eager options are processed before the others, so the log contains what is wrong with those.
_OF_COMMANDS = (
    click.Option(
        ["-v", "--verbose"],
        is_eager=True,
        expose_value=False,
        callback=lambda context, _, verbose: listen(context, verbose, False, None),
        **_VERBOSE,
    ),
    click.Option(
        ["-q", "--quiet"],
        is_eager=True,
        expose_value=False,
        callback=lambda context, _, quiet: listen(context, False, quiet, None),
        **_QUIET,
    ),
    click.Option(
        ["--log-file"],
        is_eager=True,
        expose_value=False,
        callback=lambda context, _, file: listen(context, False, False, file),
        **_LOG_FILE,
    ),
)


def add_output_options(command: click.Command) -> click.Command:
    """Give a command the options, after its name, and return it."""
    if _OF_COMMANDS[0] not in command.params:
        command.params.extend(_OF_COMMANDS)
    return command


@contextmanager
def logged() -> Iterator[None]:
    """Log how the block ends and how long it took; an error with its traceback."""
    started = time.perf_counter()
    try:
        yield
        log.info("done in %.3f s", time.perf_counter() - started)
    except click.exceptions.Exit as ended:
        log.info("ended with exit code %d after %.3f s", ended.exit_code, time.perf_counter() - started)
        raise
    except BaseException as error:
        seconds = time.perf_counter() - started
        log.error("ended with %s after %.3f s: %s", type(error).__name__, seconds, error, exc_info=True)
        raise


def _start(context: click.Context, handler: logging.Handler) -> None:
    """Write the environment and the command line to a handler, and the log until the command ends."""
    from ..runtime.checks.report import report

    arguments: Sequence[str] = context.meta.get(ARGUMENTS, [])
    for line in [*report(), f"command: {shlex.join(['bcm-edge', *arguments])}"]:
        handler.handle(log.makeRecord(log.name, logging.INFO, __file__, 0, line, (), None))
    log.addHandler(handler)
    log.setLevel(logging.DEBUG)
    context.find_root().call_on_close(lambda: _stop(handler))


def _stop(handler: logging.Handler) -> None:
    log.removeHandler(handler)
    log.setLevel(logging.NOTSET)
    with contextlib.suppress(OSError):  # a full disk
        handler.close()


class _Terminal(logging.Handler):
    """A formatter of lines for stderr: the seconds since the start and the message, without tracebacks.

    Lines that the command prints on stderr itself are not repeated.
    """

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        # Kept from the start: the environment variable HOME changes while a job runs on Ray.
        self.home = home_folder()

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record as one line."""
        if not hasattr(record, SHOWN):
            line = f"[{record.relativeCreated / 1000:7.3f} s] {record.getMessage()}"
            click.echo(without_home(line, self.home), file=sys.stderr)


class _File(logging.FileHandler):
    """A file to which the logs of several commands are appended.

    Raises OSError if the file cannot be written, OutputError if it is not a log file.
    """

    def __init__(self, path: Path) -> None:
        _check_is_log(path)
        self.path, self.home = path, home_folder()
        path.parent.mkdir(parents=True, exist_ok=True)
        super().__init__(path, encoding="utf-8", errors="backslashreplace")
        assert self.stream  # FileHandler opens the file at once
        self.stream.write(f"{HEADER}, {time.strftime('%Y-%m-%d %H:%M:%S %z')}\n")
        self.stream.flush()

    def format(self, record: logging.LogRecord) -> str:
        """Return a record as a line, followed by the traceback if there is one."""
        level = "" if record.levelno == logging.INFO else f"{record.levelname} "
        traceback = f"\n{logging.Formatter().formatException(record.exc_info)}" if record.exc_info else ""
        line = f"[{record.relativeCreated / 1000:7.3f} s] {level}{record.getMessage()}{traceback}"
        return without_home(line, self.home)

    def handleError(self, record: logging.LogRecord) -> None:
        """Continue the command without the log, for example when the disk is full."""
        log.removeHandler(self)
        reason = sys.exc_info()[1]
        click.echo(
            f"note: {self.baseFilename}: the log file can no longer be written ({reason}); "
            "the command continues without it",
            file=sys.stderr,
        )


def _check_is_log(path: Path) -> None:
    """Raise OutputError if the file exists and is not a log file, so a wrong name destroys no data."""
    if path.is_fifo():  # opening it may wait forever
        raise OutputError(f"{path} is a pipe; --log-file needs a regular file")
    if not path.is_file() or not path.stat().st_size:
        return
    with path.open("rb") as file:
        is_log = file.read(len(HEADER)) == HEADER.encode()
    if not is_log:
        raise OutputError(f"{path} exists and is not a log file of bcm-edge; give another --log-file")
