"""Run a command that prints JSON, and write its output to a result file with command, date and machine.

    python benchmarks/record.py -o benchmarks/results/bench-digits.json bcm-edge bench digits.bundle --json

The command must print one JSON object on standard output, as all commands of bcm-edge do with --json. Its
messages on standard error are shown.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import networks  # noqa: F401 (makes this checkout importable as bcm_edge)
from result_files import add_output, origin, write_figures


def main() -> None:
    """Run the command, and write the result file."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    add_output(parser)
    parser.add_argument("command", nargs=argparse.REMAINDER, help="with its arguments")
    arguments = parser.parse_args()
    if arguments.output is None or not arguments.command:
        parser.error("give -o FILE and a command")
    measured_by = origin(arguments.command)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    environment = {**os.environ, "PATH": path}
    ended = subprocess.run(arguments.command, stdout=subprocess.PIPE, text=True, env=environment, check=False)
    if ended.returncode:
        sys.exit(f"the command ended with exit code {ended.returncode}; {arguments.output} was not written")
    try:
        figures = json.loads(ended.stdout)
    except ValueError as error:
        sys.exit(f"the command did not print one JSON object ({error}); {arguments.output} was not written")
    write_figures(arguments.output, measured_by, figures)


if __name__ == "__main__":
    main()
