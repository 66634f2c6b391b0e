"""The output of a failed command: one line on stderr, one object on stdout with --json, and an exit code."""

from __future__ import annotations

import errno
import json
import re
import sys
from collections.abc import Sequence

import click

from ..errors import BcmError, Interrupted
from ..runtime.machine.temporary import NO_TEMPORARY, PYTHON_SAYS
from .console import PRINTED, message

INTERRUPTED = 130  # 128 + SIGINT
BUG = 70  # EX_SOFTWARE of sysexits.h

# Errors of the machine, not of this package. Those of writes and pipes have no file name.
_OF_THE_MACHINE = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENFILE)

# What the messages of libraries contain when memory does not suffice.
_OUT_OF_MEMORY = (
    "can't allocate memory",
    "out of memory",
    "bad_alloc",
    "bad allocation",
    "Failed to allocate memory",
)


def asks_for_json(arguments: Sequence[str]) -> bool:
    """Return whether --json is among the arguments, before a `--`."""
    options = arguments[: arguments.index("--")] if "--" in arguments else arguments
    return "--json" in options


def print_json(kind: str, message: str, exit_code: int) -> None:
    """Print an error as one JSON object on stdout, unless the result of the command is already there.

    Standard output has at most one object. A result that was printed before the error contains what failed.
    """
    context = click.get_current_context(silent=True)
    if context and context.meta.get(PRINTED):
        return
    error = {"kind": kind, "message": message, "exit_code": exit_code}
    click.echo(json.dumps({"error": error}), file=sys.stdout)


def report(error: BaseException, as_json: bool) -> int:
    """Print the error that ended a command, and return its exit code."""
    text, exit_code = explained(error)
    message(text if isinstance(error, KeyboardInterrupt) else f"error: {text}")
    if as_json:
        print_json(type(error).__name__, text, exit_code)
    return exit_code


def explained(error: BaseException) -> tuple[str, int]:
    """Return the message of an error in one line, and its exit code."""
    if isinstance(error, (BcmError, Interrupted)):
        return printable(str(error)), error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", INTERRUPTED
    first_line = str(error).split("\n")[0]
    text = printable(" ".join(first_line.split()))
    if isinstance(error, MemoryError) or any(sign in str(error) for sign in _OUT_OF_MEMORY):
        detail = f" ({text})" if text else ""
        return f"not enough memory{detail}; process fewer images at a time, or use a smaller --batch", 2
    if isinstance(error, OSError) and error.filename:
        return printable(f"{error.filename}: {error.strerror}"), 2
    if isinstance(error, FileNotFoundError) and PYTHON_SAYS in text:
        return NO_TEMPORARY, 2
    if isinstance(error, OSError) and error.errno in _OF_THE_MACHINE:
        return error.strerror or text, 2
    bug = f"this is a bug in bcm-edge: {type(error).__name__}: {text}"
    advice = "run the command again with --log-file bug.log, and report the bug with that file"
    return f"{bug}; {advice} (it has the traceback)", BUG


def printable(text: str) -> str:
    """Return the text with its control characters escaped: names of files may contain them.

    A line break is kept before two spaces: that is how messages of several lines are written.
    """
    text = re.sub(r"\n(?!  )", r"\\n", text)
    return re.sub(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", lambda match: f"\\x{ord(match[0]):02x}", text)
