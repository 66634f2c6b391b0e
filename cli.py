"""The command line: `bcm-edge …` once installed, `python cli.py …` in a checkout."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

if __name__ == "__main__":  # run as a script: this checkout is the package, installed or not
    root = Path(__file__).resolve().parent
    sys.path = [
        entry for entry in sys.path if Path(entry or ".").resolve() != root
    ]  # its folders are not top-level packages
    spec = importlib.util.spec_from_file_location(
        "bcm_edge", root / "__init__.py", submodule_search_locations=[str(root)]
    )
    assert spec and spec.loader
    package = importlib.util.module_from_spec(spec)
    sys.modules["bcm_edge"] = package
    spec.loader.exec_module(package)
    __package__ = "bcm_edge"

from . import BcmError, __version__
from .commands.failures import asks_for_json, print_json, report
from .commands.log import ARGUMENTS, add_log_options, listen, log_options, logged
from .commands.paths import check_current_folder
from .commands.streams import prepare_streams
from .runtime.log import log
from .runtime.machine.privacy import keep_files_in_cache
from .runtime.machine.resources import limit_threads

AS_JSON = "bcm_edge.as_json"  # in a context's meta: whether --json was given


class Commands(click.Group):
    """Commands imported when they are asked for, so that `generate` never waits for `export`."""

    homes = {  # noqa: RUF012 (click.Group is no dataclass)
        "export": "export",
        "calibrate": "calibration",
        "build": "build",
        "triton": "serving",
        "generate": "images",
        "invert": "images",
        "reconstruct": "images",
        "interpolate": "latents",
        "variations": "latents",
        "trace": "latents",
        "inpaint": "editing",
        "colorize": "editing",
        "upscale": "editing",
        "restore": "editing",
        "purify": "editing",
        "verify": "checks",
        "bench": "bench",
        "inspect": "checks",
        "doctor": "checks",
        "train": "train",
        "evaluate": "evaluate",
        "map": "mapping",
        "demo": "demo",
        "ui": "ui",
    }

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.homes)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.homes:
            return None
        return add_log_options(
            getattr(importlib.import_module(f".commands.{self.homes[cmd_name]}", __package__), cmd_name)
        )

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in self.homes and not name.startswith("-"):
            close = difflib.get_close_matches(name, self.homes, n=1)
            advice = f"did you mean {close[0]}?" if close else f"{ctx.command_path} --help lists them."
            raise click.UsageError(f"No such command {name!r}; {advice}", ctx)
        return super().resolve_command(ctx, args)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta[AS_JSON] = asks_for_json(args)
        ctx.meta[ARGUMENTS] = list(args)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            check_current_folder()
            with logged():
                return super().invoke(ctx)
        except (BcmError, KeyboardInterrupt) as error:
            ctx.exit(report(error, ctx.meta[AS_JSON]))
        except click.ClickException as error:  # click prints it for people
            if isinstance(error, click.NoSuchOption) and (
                file := _named_like(error.option_name, ctx.meta[ARGUMENTS])
            ):
                error = click.UsageError(
                    f"{error.format_message()} For the file of that name write ./{file}.", error.ctx
                )
            if ctx.meta[AS_JSON]:
                print_json(type(error).__name__, error.format_message(), error.exit_code)
            raise error

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run as a process: its streams are made usable, and what escapes from a command ends in one line, too."""
        prepare_streams()
        keep_files_in_cache()
        limit_threads()
        log.propagate = (
            False  # handlers that a library gives to the root logger would print tracebacks on stderr
        )
        try:
            return self.main(*args, **kwargs)
        except Exception as error:
            sys.exit(report(error, asks_for_json(sys.argv[1:])))


def _named_like(option: str, arguments: Sequence[str]) -> str | None:
    """A file with a name like an option, given as an argument."""
    return next((word for word in arguments if word.startswith(option) and os.path.lexists(word)), None)


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Start here:  bcm-edge export -o digits.bundle && bcm-edge generate digits.bundle -n 16 --label all -o digits.png",
)
@click.version_option(__version__, prog_name="bcm-edge")
@log_options
@click.pass_context
def main(context: click.Context, verbose: bool, log_file: Path | None) -> None:
    """Bidirectional Consistency Models on the device: export, generate, invert.

    Exit codes: 0 fine; 1 what was checked failed; 2 usage, or an input that cannot be used; 70 a bug in bcm-edge; 130 interrupted.
    With --json a failure prints {"error": {"kind": …, "message": …, "exit_code": …}} on stdout, besides the line on stderr.
    """
    listen(context, verbose, log_file)


if __name__ == "__main__":
    main()
