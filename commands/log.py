"""-v and --log-file: what the logger `bcm_edge` says, on stderr and in a file that can be attached to a report of a problem.

Every command takes both options, before its name and after it. The file has all that was logged, and the traceback of what ended the
command; on stderr an error stays one line.
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
from .console import SHOWN, Function
from .paths import OutputPath

ARGUMENTS = "bcm_edge.arguments"  # in a context's meta: the command line after the program's name
HEADER = "log of bcm-edge"  # how a log file begins


_VERBOSE: dict[str, Any] = {
    "is_flag": True,
    "help": "Say on stderr what is used and why: versions, backend, cache, times.",
}
_LOG_FILE: dict[str, Any] = {
    "type": OutputPath("file", "logs"),
    "metavar": "FILE",
    "help": "Add the same to a file, with the traceback of an error: for a report of a problem.",
}


def listen(context: click.Context, verbose: bool, log_file: Path | None) -> None:
    """Begin to write the log, until the outermost context ends. Raises OutputError for a file that cannot be written."""
    if verbose and not any(isinstance(handler, _Terminal) for handler in log.handlers):
        _start(context, _Terminal())
    if log_file is not None and not any(
        isinstance(handler, _File) and handler.path == log_file for handler in log.handlers
    ):
        try:
            _start(context, _File(log_file))
        except (OSError, ValueError) as error:
            raise OutputError(
                f"{log_file}: the log file cannot be written ({getattr(error, 'strerror', None) or error})"
            ) from error


def log_options(group: Function) -> Function:
    """-v and --log-file before a command's name; the group's function passes them to `listen`."""
    return click.option("-v", "--verbose", **_VERBOSE)(click.option("--log-file", **_LOG_FILE)(group))


_OF_COMMANDS = (  # eager: before the other options, so that the log has what is wrong with them
    click.Option(
        ["-v", "--verbose"],
        is_eager=True,
        expose_value=False,
        callback=lambda context, _, verbose: listen(context, verbose, None),
        **_VERBOSE,
    ),
    click.Option(
        ["--log-file"],
        is_eager=True,
        expose_value=False,
        callback=lambda context, _, file: listen(context, False, file),
        **_LOG_FILE,
    ),
)


def add_log_options(command: click.Command) -> click.Command:
    """The command, with -v and --log-file after its name, too."""
    if _OF_COMMANDS[0] not in command.params:
        command.params.extend(_OF_COMMANDS)
    return command


@contextmanager
def logged() -> Iterator[None]:
    """Log how the block ends: an error with its traceback."""
    started = time.perf_counter()
    try:
        yield
        log.info("done in %.3f s", time.perf_counter() - started)
    except click.exceptions.Exit as ended:
        log.info("ended with exit code %d after %.3f s", ended.exit_code, time.perf_counter() - started)
        raise
    except BaseException as error:
        log.error(
            "ended with %s after %.3f s: %s",
            type(error).__name__,
            time.perf_counter() - started,
            error,
            exc_info=True,
        )
        raise


def _start(context: click.Context, handler: logging.Handler) -> None:
    """Have a handler take what is logged, from the environment on, until the command ends."""
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
    """Lines on stderr with the seconds since the start. What a command prints there anyway is not repeated, and a traceback is left out."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.home = home_folder()  # for a job, Ray gets another one

    def emit(self, record: logging.LogRecord) -> None:
        if not hasattr(record, SHOWN):
            line = f"[{record.relativeCreated / 1000:7.3f} s] {record.getMessage()}"
            click.echo(without_home(line, self.home), file=sys.stderr)


class _File(logging.FileHandler):
    """A file to which logs are added. Raises OSError if it cannot be written, OutputError if it holds something else."""

    def __init__(self, path: Path) -> None:
        _check_is_log(path)
        self.path, self.home = path, home_folder()
        path.parent.mkdir(parents=True, exist_ok=True)
        super().__init__(path, encoding="utf-8", errors="backslashreplace")
        assert self.stream  # it is opened at once
        self.stream.write(f"{HEADER}, {time.strftime('%Y-%m-%d %H:%M:%S %z')}\n")
        self.stream.flush()

    def format(self, record: logging.LogRecord) -> str:
        level = "" if record.levelno == logging.INFO else f"{record.levelname} "
        traceback = f"\n{logging.Formatter().formatException(record.exc_info)}" if record.exc_info else ""
        line = f"[{record.relativeCreated / 1000:7.3f} s] {level}{record.getMessage()}{traceback}"
        return without_home(line, self.home)

    def handleError(self, record: logging.LogRecord) -> None:
        """Go on without the log: a full disk ends the log, not the command."""
        log.removeHandler(self)
        click.echo(
            f"note: {self.baseFilename}: the log ends here, it cannot be written any more ({sys.exc_info()[1]})",
            file=sys.stderr,
        )


def _check_is_log(path: Path) -> None:
    """Raise OutputError if there is a file that is no log, so that a wrong name costs nobody a model."""
    if path.is_fifo():  # to open it may wait for ever
        raise OutputError(f"{path} is a pipe; a log is written to a file")
    if path.is_file() and path.stat().st_size:
        with path.open("rb") as file:
            if not file.read(len(HEADER)) == HEADER.encode():
                raise OutputError(
                    f"{path} exists already and is not a log file of bcm-edge; give another name for the log file"
                )
