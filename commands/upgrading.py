"""bcm-edge upgrade: a bundle of an older format in the newest one."""

from __future__ import annotations

from pathlib import Path

import click

from ..runtime.storage.bundle import open_bundle
from .console import result
from .options import bundle_argument, json_option


@click.command(
    short_help="Convert a bundle to the newest format.", epilog="Example:  bcm-edge upgrade digits.bundle"
)
@bundle_argument
@json_option
def upgrade(bundle: Path, as_json: bool) -> None:
    """Convert BUNDLE to the newest bundle format.

    There is one format so far, schema 1, so there is nothing to convert: the command checks BUNDLE and
    changes nothing. A bundle with a newer format is an error.
    """
    schema = open_bundle(bundle).manifest.schema
    result(
        as_json,
        {"bundle": str(bundle), "schema": schema, "changed": False},
        f"{bundle} has schema {schema}, the newest; nothing to upgrade",
    )
