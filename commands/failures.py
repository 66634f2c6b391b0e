"""How a command says that it failed: one line on stderr, with --json one object on stdout, and an exit code."""

from __future__ import annotations

import errno
import json
import re
import sys
from collections.abc import Sequence

import click

from ..errors import BcmError
from ..runtime.machine.temporary import NO_TEMPORARY, PYTHON_SAYS
from .console import PRINTED, progress

INTERRUPTED = 130  # 128 + SIGINT
BUG = 70  # EX_SOFTWARE of sysexits.h
_OF_THE_MACHINE = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EIO,
    errno.EMFILE,
    errno.ENFILE,
)  # of a write or a pipe, so without a file's name
_OUT_OF_MEMORY = (
    "can't allocate memory",
    "out of memory",
    "bad_alloc",
    "bad allocation",
    "Failed to allocate memory",
)


def asks_for_json(arguments: Sequence[str]) -> bool:
    options = arguments[: arguments.index("--")] if "--" in arguments else arguments
    return "--json" in options


def print_json(kind: str, message: str, exit_code: int) -> None:
    """The error as a script reads it: the only object on stdout, so none where the result, which says what failed, was printed already."""
    context = click.get_current_context(silent=True)
    if context and context.meta.get(PRINTED):
        return
    click.echo(
        json.dumps({"error": {"kind": kind, "message": message, "exit_code": exit_code}}), file=sys.stdout
    )


def report(error: BaseException, as_json: bool) -> int:
    """Say what ended a command; returns the exit code."""
    message, exit_code = explained(error)
    progress(message if isinstance(error, KeyboardInterrupt) else f"error: {message}")
    if as_json:
        print_json(type(error).__name__, message, exit_code)
    return exit_code


def explained(error: BaseException) -> tuple[str, int]:
    """The message for people, and the exit code."""
    if isinstance(error, BcmError):
        return printable(str(error)), error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", INTERRUPTED
    said = printable(" ".join(str(error).split("\n")[0].split()))
    if isinstance(error, MemoryError) or any(sign in str(error) for sign in _OUT_OF_MEMORY):
        return (
            f"not enough memory{f' ({said})' if said else ''}; give fewer images at a time, or a smaller --batch",
            2,
        )
    if isinstance(error, OSError) and error.filename:
        return printable(f"{error.filename}: {error.strerror}"), 2
    if isinstance(error, FileNotFoundError) and PYTHON_SAYS in said:
        return NO_TEMPORARY, 2
    if isinstance(error, OSError) and error.errno in _OF_THE_MACHINE:
        return error.strerror or said, 2
    return (
        f"this is a bug in bcm-edge: {type(error).__name__}: {said}; run the command again with --log-file bug.log, "
        "and report it with that file, which has the traceback",
        BUG,
    )


def printable(text: str) -> str:
    """The text with the control characters escaped that a file's name may hold. Lines that a message itself begins are indented."""
    text = re.sub(r"\n(?!  )", r"\\n", text)
    return re.sub(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", lambda found: f"\\x{ord(found[0]):02x}", text)
