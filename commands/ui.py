"""bcm-edge ui: a window on a bundle, in the browser."""

from __future__ import annotations

from pathlib import Path

import click

from ..runtime.loading import load
from .console import backend_option, bundle_argument, note_engines, precision_option, progress


@click.command(
    short_help="A page in the browser to try a bundle on.", epilog="Example:  bcm-edge ui digits.bundle"
)
@bundle_argument
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Where to listen; 0.0.0.0 lets the whole network in.",
)
@click.option(
    "--port", default=8765, show_default=True, type=click.IntRange(0, 65535), help="0 takes a free one."
)
@backend_option
@precision_option
def ui(bundle: Path, host: str, port: int, backend: str, precision: str | None) -> None:
    """Serve a page on which to generate, invert and reconstruct, go between two pictures, and fill in what is painted over.

    It prints its address, is reachable from this machine alone unless --host says otherwise, and ends with Ctrl-C. On a device without
    a screen, forward the port: ssh -L 8765:127.0.0.1:8765 DEVICE.
    """
    from ..ui.answers import Answers
    from ..ui.server import Window

    bcm = load(bundle, backend, precision=precision)
    if backend == "auto":
        note_engines(bcm.bundle, bcm.backend)
    answers = Answers(bcm)
    answers.warm_up()
    with Window(answers, host, port) as window:
        progress(
            f"{bcm.bundle.manifest.model.name} in {bcm.backend.precision} on {bcm.backend.name}: {bcm.backend.device}; Ctrl-C ends it"
        )
        if window.is_open:
            progress(
                "note: other machines can reach it, and there is no password; leave --host out to keep it to this one"
            )
        click.echo(window.address)
        try:
            window.serve_forever()
        except KeyboardInterrupt:
            progress("")
    answers.close()
