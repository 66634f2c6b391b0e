"""The origin of a picture: what a command writes into PNG files, and the command that repeats them.

No path and no name of a file is written: `IMAGES` stands for the inputs, `FILE` for the file of an option.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

import click
from click.core import ParameterSource

from ..runtime.pipeline import BCM
from ..runtime.storage.shipped import SHIPPED, shipped_name

# Parameters of a command that do not change its images, or that say something about the machine.
_LEFT_OUT = (
    "bundle",
    "output",
    "force",
    "as_json",
    "scale",
    "metadata",
    "backend",
    "threads",
    "device",
    "batch",
)
FILE = "FILE"  # stands for the path of an option


def origin(bcm: BCM, seed: int, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is known of the images of the current command, as JSON values.

    seed: the seed of the first image. facts: those of this run, such as its schedule and labels.
    """
    context = click.get_current_context()
    parameters = [
        parameter
        for parameter in context.command.params
        if _changes_images(parameter)
        and context.get_parameter_source(str(parameter.name)) is ParameterSource.COMMANDLINE
    ]
    names = [parameter.name for parameter in parameters if isinstance(parameter, click.Argument)]
    options = {
        parameter.opts[0]: _text(parameter, context.params.get(str(parameter.name)))
        for parameter in parameters
        if isinstance(parameter, click.Option)
    }
    options.setdefault("--precision", bcm.backend.precision)
    if "--latents" not in options:  # the file of latents has the seeds
        options.setdefault("--seed", str(seed))
    return {
        "command": context.command.name,
        "arguments": [name for name in names if context.params[str(name)]],
        "options": options,
        "model": shipped_name(bcm.bundle.path),
        "bundle_sha256": bcm.bundle.fingerprint(bcm.backend.precision),
        "precision": bcm.backend.precision,
        **facts,
    }


def _changes_images(parameter: click.Parameter) -> bool:
    """Return whether a parameter may change images. Options for messages and logs are not exposed."""
    return parameter.expose_value and parameter.name not in _LEFT_OUT


def _text(parameter: click.Parameter, value: Any) -> str:
    """Return the value of an option as it is written on the command line; "" for a flag."""
    if isinstance(parameter.type, click.Path):
        return FILE
    if isinstance(value, bool):
        return ""
    return ",".join(f"{number:g}" for number in value) if isinstance(value, tuple) else str(value)


def repeating(command: click.Command, facts: Mapping[str, Any]) -> str | None:
    """Return the command line that makes the images of a picture again; None if the facts do not say it.

    command: the command that the facts name. facts: as they are in the file, from anybody. Only the options
    of the command are taken, with FILE in place of paths; values are quoted for a shell.
    """
    arguments, options = facts.get("arguments"), facts.get("options")
    if not isinstance(arguments, list) or not isinstance(options, dict):
        return None
    model = facts.get("model")
    words = ["bcm-edge", str(command.name), model if model in SHIPPED else "BUNDLE"]
    for parameter in command.params:
        if isinstance(parameter, click.Argument) and parameter.name in arguments:
            words.append(str(parameter.name).upper())
    for parameter in command.params:
        value = options.get(parameter.opts[0])
        if isinstance(parameter, click.Argument) or not _changes_images(parameter) or value is None:
            continue
        if not isinstance(value, str) or not value.isprintable():
            return None
        is_path = isinstance(parameter.type, click.Path)
        is_flag = isinstance(parameter, click.Option) and parameter.is_flag
        words += [parameter.opts[0], *([] if is_flag else [FILE if is_path else shlex.quote(value)])]
    return " ".join([*words, "-o", "OUTPUT.png"])
