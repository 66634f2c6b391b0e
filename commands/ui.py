"""bcm-edge ui: a page in the browser to try a bundle."""

from __future__ import annotations

from pathlib import Path

import click

from ..runtime.loading import load
from .console import note, note_engines, progress
from .options import backend_option, bundle_argument, device_option, precision_option, threads_option


@click.command(short_help="Try a bundle on a page in the browser.", epilog="Example:  bcm-edge ui emoji")
@bundle_argument
@click.option(
    "--host",
    metavar="HOST",
    default="127.0.0.1",
    show_default=True,
    help="Address to listen on. With 0.0.0.0, the page is open to the whole network, without a password.",
)
@click.option(
    "--port",
    metavar="N",
    default=8765,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="Port to listen on; 0 takes a free one.",
)
@backend_option
@precision_option
@threads_option
@device_option
def ui(
    bundle: Path,
    host: str,
    port: int,
    backend: str,
    precision: str | None,
    threads: int | None,
    device: str | None,
) -> None:
    """Serve a page in the browser to generate, reconstruct, interpolate and inpaint with BUNDLE.

    The command prints the address of the page, and runs until Ctrl-C. Only this machine can open the page,
    unless --host is given. For a device without a screen, forward the port: ssh -L 8765:127.0.0.1:8765 DEVICE
    """
    from ..ui.answers import Answers
    from ..ui.server import Window

    bcm = load(bundle, backend, precision=precision, threads=threads, device=device)
    note_engines(bcm.bundle, bcm.backend, backend, device)
    answers = Answers(bcm)
    answers.warm_up()
    with Window(answers, host, port) as window:
        model, player = bcm.bundle.manifest.model.name, bcm.backend
        progress(f"{model} in {player.precision} on {player.name}: {player.device}; stop with Ctrl-C")
        if window.is_open:
            note("other machines can open the page without a password; leave out --host to prevent that")
        click.echo(window.address)
        try:
            window.serve_forever()
        except KeyboardInterrupt:
            progress("")
    answers.close()
