"""Paths as people write them on a command line: ~ where the shell did not expand it, and names that no output can have."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

import click

from ..errors import InputError, OutputError

Writes = Literal["file", "folder", "either"]

_STREAMS = ("/dev/std", "/dev/fd/", "/proc/self/fd/")


class UserPath(click.Path):
    """A path in which ~ is the home folder, also behind an equals sign, as in --data=~/photos. Raises InputError.

    kind: Path, or str for what may also be a name, as of a data set inside this package.
    """

    def __init__(self, kind: type[Path] | type[str] = Path) -> None:
        super().__init__(path_type=kind)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "" and param:
            raise InputError(f"the path of {param.get_error_hint(ctx)} is empty")
        return super().convert(_expanded(value) if isinstance(value, str) else value, param, ctx)


class OutputPath(UserPath):
    """Where results go. Raises OutputError for standard output, and for a folder's name where a file is written."""

    def __init__(self, writes: Writes, what: str = "results") -> None:
        super().__init__()
        self.writes, self.what = writes, what

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "-" or str(value).startswith(_STREAMS):
            raise OutputError(
                f"{value}: {self.what} are not written to standard output; give a name (./- for a file named -)"
            )
        path = super().convert(value, param, ctx)
        if (
            str(value).endswith("/")
            and not path.is_dir()
            and (self.writes == "file" or (self.writes == "either" and path.suffix))
        ):
            raise OutputError(
                f"{value} ends in /, as a folder's name does, but a file is to be written; leave out the /"
            )
        return path


def check_utf8(*paths: Path | str) -> None:
    """Raise InputError for a path that is not UTF-8, which some libraries cannot open."""
    for path in paths:
        try:
            str(Path(path).absolute()).encode()
        except UnicodeEncodeError as error:
            raise InputError(
                f"{path}: the path is not UTF-8; rename the file, or its folder, for this command"
            ) from error


def check_current_folder() -> None:
    """Raise InputError where the current folder was deleted: no relative path leads anywhere, and libraries of torch end the process."""
    try:
        Path.cwd()
    except FileNotFoundError as error:
        raise InputError("the current folder was deleted; change to another one (cd)") from error


def _expanded(text: str) -> str:
    """The text with ~ or ~USER replaced, unless a file of that name is there."""
    if not text.startswith("~") or os.path.lexists(text):
        return text
    try:
        return str(Path(text).expanduser()) + "/" * text.endswith("/")
    except RuntimeError:
        user = Path(text).parts[0][1:]
        reason = (
            f"there is no user {user!r}" if user else "the home folder is not known, since HOME is not set"
        )
        raise InputError(f"{text}: {reason}; write ./{text} for a file of that name") from None


PATH = UserPath()
PATH_OR_NAME = UserPath(str)
