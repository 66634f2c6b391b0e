"""The command line: `bcm-edge …` and `python -m bcm_edge …`; `python cli.py …` in a checkout."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import click

if __name__ == "__main__":  # run as a script: import the package from this checkout, installed or not
    root = Path(__file__).resolve().parent
    # Python puts the folder of a script on its path. The folders in it are not packages of their own.
    sys.path = [entry for entry in sys.path if Path(entry or ".").resolve() != root]
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
from .commands.log import ARGUMENTS, add_output_options, listen, logged, output_options
from .commands.paths import check_current_folder
from .commands.streams import prepare_streams
from .runtime.log import log
from .runtime.machine.privacy import keep_files_in_cache
from .runtime.machine.resources import limit_threads
from .runtime.wording import options_in_messages

AS_JSON = "bcm_edge.as_json"  # key of a click context's meta: whether --json is among the arguments
# Names that people type → the command or option to suggest.
OTHER_NAMES = {
    "benchmark": "bench",
    "convert": "export",
    "denoise": "restore",
    "fill": "inpaint",
    "help": "--help",
    "info": "inspect",
    "predict": "generate",
    "sample": "generate",
    "serve": "triton",
    "show": "inspect",
    "superres": "upscale",
    "vary": "variations",
    "version": "--version",
}


class Commands(click.Group):
    """The commands.

    The module of a command is imported when the command is used, so `generate` never waits for `export`.
    """

    # Group → command → its module in commands/, in the order of --help.
    groups: ClassVar[dict[str, dict[str, str]]] = {
        "Make a bundle": {
            "export": "export",
            "calibrate": "calibration",
            "build": "build",
            "pack": "packing",
            "unpack": "packing",
            "upgrade": "upgrading",
            "card": "card",
        },
        "Make images": {
            "generate": "images",
            "invert": "images",
            "reconstruct": "images",
            "interpolate": "latents",
            "variations": "latents",
            "trace": "trace",
            "map": "mapping",
            "demo": "demo",
        },
        "Edit images": {
            "inpaint": "editing",
            "colorize": "editing",
            "upscale": "editing",
            "restore": "restoration",
            "purify": "restoration",
            "restyle": "latents",
        },
        "Check": {
            "inspect": "inspection",
            "verify": "verify",
            "bench": "bench",
            "evaluate": "evaluate",
            "doctor": "doctor",
        },
        "Serve": {
            "ui": "ui",
            "triton": "serving",
        },
        "Train": {
            "train": "train",
        },
    }
    # Command → its module in commands/.
    homes: ClassVar[dict[str, str]] = {
        name: module for commands in groups.values() for name, module in commands.items()
    }

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the commands in the order of --help."""
        return list(self.homes)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command; None for an unknown name."""
        if cmd_name not in self.homes:
            return None
        module = importlib.import_module(f".commands.{self.homes[cmd_name]}", __package__)
        return add_output_options(getattr(module, cmd_name))

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands in their groups, each with one line."""
        width = max(map(len, self.homes))
        for group, names in self.groups.items():
            commands = [self.get_command(ctx, name) for name in names]
            helps = [command.get_short_help_str() for command in commands if command]
            with formatter.section(group):
                formatter.write_dl(
                    [(name.ljust(width), text) for name, text in zip(names, helps, strict=True)]
                )

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command. For an unknown name, suggest the command with the most similar name."""
        name = args[0]
        if name not in self.homes and not name.startswith("-"):
            meant = _command_named_like(name, list(self.homes))
            advice = f"did you mean {meant}?" if meant else f"{ctx.command_path} --help lists them."
            raise click.UsageError(f"No such command {name!r}; {advice}", ctx)
        return super().resolve_command(ctx, args)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments, and remember them for error messages and logs."""
        ctx.meta[AS_JSON] = asks_for_json(args)
        ctx.meta[ARGUMENTS] = list(args)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command and report its errors: one line on stderr, with --json one object on stdout."""
        try:
            check_current_folder()
            with logged(), options_in_messages():
                return super().invoke(ctx)
        except (BcmError, KeyboardInterrupt) as error:
            ctx.exit(report(error, ctx.meta[AS_JSON]))
        except click.ClickException as error:  # click prints its own line on stderr
            shown = _with_example(_with_file_hint(error, ctx.meta[ARGUMENTS]))
            if ctx.meta[AS_JSON]:
                print_json(type(shown).__name__, shown.format_message(), shown.exit_code)
            raise shown from None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run as a program: prepare the process, and end with one line on stderr whatever happens."""
        prepare_streams()
        keep_files_in_cache()
        limit_threads()
        # A library may give the root logger a handler, which would print tracebacks on stderr.
        log.propagate = False
        try:
            return self.main(*args, **kwargs)
        except Exception as error:
            sys.exit(report(error, asks_for_json(sys.argv[1:])))


def _command_named_like(name: str, commands: list[str]) -> str | None:
    """Return the command that an unknown name may stand for: by meaning, beginning or spelling."""
    if name in OTHER_NAMES:
        return OTHER_NAMES[name]
    longer = [command for command in commands if command.startswith(name)]
    similar = longer if len(longer) == 1 else difflib.get_close_matches(name, commands, n=1)
    return similar[0] if similar else None


def _with_example(error: click.ClickException) -> click.ClickException:
    """Return the error; for a missing argument or option, with the example of the command's help."""
    if not isinstance(error, click.MissingParameter) or not error.ctx:
        return error
    return click.MissingParameter(error.ctx.command.epilog, error.ctx, error.param)


def _with_file_hint(error: click.ClickException, arguments: Sequence[str]) -> click.ClickException:
    """Return the error; for an unknown option with the name of an existing file, how to pass that file."""
    if not isinstance(error, click.NoSuchOption):
        return error
    file = _file_named_like(error.option_name, arguments)
    if file is None:
        return error
    return click.UsageError(f"{error.format_message()} For the file of that name write ./{file}.", error.ctx)


def _file_named_like(option: str, arguments: Sequence[str]) -> str | None:
    """Return the argument that begins like an option and is the name of a file; None if there is none."""
    for argument in arguments:
        if argument.startswith(option) and os.path.lexists(argument):
            return argument
    return None


EPILOG = """\b
Start here:
  bcm-edge generate digits -n 16 --label all -o digits.png
  bcm-edge export digits -o digits.bundle"""


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog=EPILOG,
)
@click.version_option(__version__, prog_name="bcm-edge")
@output_options
@click.pass_context
def main(context: click.Context, verbose: bool, quiet: bool, log_file: Path | None) -> None:
    """Run Bidirectional Consistency Models on a device: export, generate, invert.

    \b
    Exit codes:
      0    success
      1    a check failed
      2    wrong usage, or an input that cannot be used
      70   a bug in bcm-edge
      130  interrupted
      143  stopped by SIGTERM

    With --json, a failed command also prints {"error": {"kind": …, "message": …, "exit_code": …}} on stdout.
    """
    listen(context, verbose, quiet, log_file)


if __name__ == "__main__":
    main()
