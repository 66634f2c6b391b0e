"""Paths as users give them: texts and path objects, which may begin with ~."""

from __future__ import annotations

import os
from pathlib import Path

from ...errors import BcmError, InputError


def path_text(value: object, name: str, error: type[BcmError] = InputError) -> str:
    """Return the text of a path, with ~ or ~USER replaced by the home folder.

    name: what messages call the path. Raises `error` if the value is not a text and not a path.
    """
    text = os.fspath(value) if isinstance(value, (str, os.PathLike)) else value
    if not isinstance(text, str):
        raise error(f"{name} must be a path, a text or an os.PathLike, not {type(text).__name__}")
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
