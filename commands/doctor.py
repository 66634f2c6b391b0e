"""bcm-edge doctor: what can run on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ..runtime.checks.doctor import Finding, examine
from ..runtime.log import without_home
from .console import result
from .options import json_option
from .paths import PATH


@click.command(
    short_help="Check what runs on this machine, and how to fix the rest.",
    epilog="Example:  bcm-edge doctor digits.bundle",
)
@click.argument("bundle", required=False, type=PATH)
@click.option(
    "--report",
    "with_report",
    is_flag=True,
    help="Print versions and settings first: attach both to a bug report.",
)
@click.pass_context
@json_option
def doctor(context: click.Context, bundle: Path | None, with_report: bool, as_json: bool) -> None:
    """Check what runs on this machine and what does not, and print the command that fixes it.

    With BUNDLE, the bundle is checked as well. The exit code is 1 if no bundle can run here.
    """
    from ..runtime.checks.report import report

    findings = examine(bundle)
    lines = [_line(finding) for finding in findings]
    ok = not any(finding.blocks for finding in findings)
    lines.append("bundles can run on this machine" if ok else "bundles cannot run on this machine yet")
    values: dict[str, Any] = {"ok": ok, "findings": [vars(finding) for finding in findings]}
    if with_report:
        values["report"] = report()
        values["findings"] = [_without_home(finding) for finding in findings]
        lines = [*values["report"], *(without_home(line) for line in lines)]
    result(as_json, values, "\n".join(lines))
    context.exit(0 if ok else 1)


def _line(finding: Finding) -> str:
    mark = "✓" if finding.ok else "✗"
    fix = f"\n    fix: {finding.fix}" if finding.fix else ""
    return f"{mark} {finding.subject}: {finding.detail}{fix}"


def _without_home(finding: Finding) -> dict[str, Any]:
    """Return the fields of a finding with ~ for the home folder."""
    detail, fix = without_home(finding.detail), without_home(finding.fix)
    return {**vars(finding), "detail": detail, "fix": fix}
