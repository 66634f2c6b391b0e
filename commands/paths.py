"""Parameter types for paths: with ~ for the home folder, and with checks of the names of outputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import click

from ..errors import InputError, OutputError
from ..runtime.storage.user_paths import expanded

Writes = Literal["file", "folder", "either"]

# Names of standard output and of other open files of the process.
_STREAMS = ("/dev/std", "/dev/fd/", "/proc/self/fd/")


class UserPath(click.Path):
    """A path in which ~ is the home folder, also after an equals sign, as in --data=~/photos.

    kind: Path, or str for arguments that may also be a name, such as the name of a built-in data set.
    Raises InputError.
    """

    def __init__(self, kind: type[Path] | type[str] = Path) -> None:
        super().__init__(path_type=kind)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path. Raises InputError if it is empty, or if the home folder is unknown."""
        if value == "" and param:
            option = param.get_error_hint(ctx)
            raise InputError(f"the path for {option} is empty; give the name of a file or folder")
        return super().convert(expanded(value) if isinstance(value, str) else value, param, ctx)


class OutputPath(UserPath):
    """The path of an output. Raises OutputError for standard output, and for file names that end in /.

    writes: whether the output is a file, a folder or either.
    contents: a plural noun for the output in messages.
    """

    def __init__(self, writes: Writes, contents: str = "results") -> None:
        super().__init__()
        self.writes, self.contents = writes, contents

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path. Raises OutputError, InputError."""
        if value == "-" or str(value).startswith(_STREAMS):
            raise OutputError(
                f"{value}: {self.contents} cannot be written to standard output; give a file name "
                "(./- for a file named -)"
            )
        path = super().convert(value, param, ctx)
        writes_file = self.writes == "file" or (self.writes == "either" and path.suffix)
        if writes_file and str(value).endswith("/") and not path.is_dir():
            raise OutputError(
                f"{value} ends in / like the name of a folder, but the output is a file; remove the /"
            )
        return path


def check_utf8(*paths: Path | str) -> None:
    """Raise InputError for a path that is not valid UTF-8: some libraries cannot open it."""
    for path in paths:
        try:
            str(Path(path).absolute()).encode()
        except UnicodeEncodeError as error:
            raise InputError(
                f"{path}: the path is not valid UTF-8; for this command, rename the file or its folder"
            ) from error


def check_current_folder() -> None:
    """Raise InputError if the current folder was deleted.

    Relative paths do not work then, and the libraries of torch end the process.
    """
    try:
        Path.cwd()
    except FileNotFoundError as error:
        raise InputError("the current folder was deleted; change to an existing one with cd") from error


PATH = UserPath()
PATH_OR_NAME = UserPath(str)
