"""Paths as users give them: texts and path objects, which may begin with ~."""

from __future__ import annotations

import os
import re
from pathlib import Path

from ...errors import BcmError, InputError

_URL = re.compile(r"[a-z][a-z0-9+.-]+:/")


def refuse_url(path: Path, error: type[BcmError]) -> None:
    """Raise `error` if a path is a URL. Path has made one slash of the two."""
    if _URL.match(str(path)) and not os.path.lexists(path):
        raise error(f"{path}: a URL, not a file. Nothing is downloaded; download the file, and give its path")


def path_text(value: object, name: str, error: type[BcmError] = InputError) -> str:
    """Return the text of a path, with ~ or ~USER replaced by the home folder.

    name: what messages call the path. Raises `error` if the value is not a path, or an empty one.
    """
    text = os.fspath(value) if isinstance(value, (str, os.PathLike)) else value
    if not isinstance(text, str):
        raise error(f"{name} must be a path, a text or an os.PathLike, not {type(text).__name__}")
    if not text:
        raise error(f"{name} is empty; give the name of a file or folder")
    return expanded(text)


def expanded(text: str) -> str:
    """Return the text with ~ or ~USER replaced by the home folder, unless a file of that name exists.

    Raises InputError if the folder is unknown.
    """
    if not text.startswith("~") or os.path.lexists(text):
        return text
    try:
        return str(Path(text).expanduser()) + "/" * text.endswith("/")
    except RuntimeError:
        user = Path(text).parts[0][1:]
        reason = f"unknown user {user!r}" if user else "the home folder is unknown because HOME is not set"
        raise InputError(f"{text}: {reason}; for a file of that name write ./{text}") from None
