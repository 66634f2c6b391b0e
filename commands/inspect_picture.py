"""The part of bcm-edge inspect for pictures: how their images were made, and the command that repeats them.

The text of a picture may be from anybody. What is shown is checked and shortened, and control characters are
escaped.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ..runtime.pictures.formats import read_text
from ..runtime.pictures.metadata import read_facts
from ..runtime.pictures.writing import OUTPUT_SUFFIXES
from ..runtime.wording import listed, printable
from .console import result
from .origin import repeating

# Fact → its type. Facts of other names or types are not shown.
_TYPES: dict[str, type] = {
    "version": str,
    "command": str,
    "model": str,
    "bundle_sha256": str,
    "precision": str,
    "schedule": str,
    "nfe": int,
    "images": int,
    "seeds": list,
    "labels": list,
    "scale": int,
}


def is_picture(path: Path) -> bool:
    """Return whether the name of a file is that of a picture."""
    return path.suffix.lower() in (*OUTPUT_SUFFIXES, ".apng")


def inspect_picture(context: click.Context, path: Path, as_json: bool) -> None:
    """Print what a picture says about its origin. Raises ImageError."""
    size, info = read_text(path)
    facts = read_facts(info)
    command = _command(context, facts)
    shown = {name: facts[name] for name, kind in _TYPES.items() if _is(kind, facts.get(name))}
    lines = [f"{name}: {_text(value)}" for name, value in shown.items()]
    if command:
        lines.append(f"repeat it:  {command}")
    if not lines:
        lines = ["no text of bcm-edge; PNG files have one unless they were written with --no-metadata"]
    first = f"{path}: {size[0]}×{size[1]} pixels"
    result(
        as_json, {"picture": str(path), "size": size, **shown, "repeat": command}, "\n".join([first, *lines])
    )


def _is(kind: type, value: Any) -> bool:
    """Return whether a value has a type and, if it is a list, has only texts and whole numbers."""
    return isinstance(value, kind) and (
        kind is not list or all(isinstance(each, (str, int)) for each in value)
    )


def _text(value: Any) -> str:
    return listed(value) if isinstance(value, list) else printable(value)


def _command(context: click.Context, facts: dict[str, Any]) -> str | None:
    """Return the command line that repeats a picture, None without facts that name a command for pictures."""
    main, name = context.find_root().command, facts.get("command")
    if not isinstance(main, click.Group) or not isinstance(name, str):
        return None
    command = main.get_command(context, name)
    if command is None or all(parameter.name != "metadata" for parameter in command.params):
        return None
    return repeating(command, facts)
