"""The checkout, and the types of the fixtures that run a command of bcm-edge."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

from click.testing import Result

ROOT = Path(__file__).resolve().parent.parent

Completed = subprocess.CompletedProcess[str]
Cli = Callable[..., Result]  # runs a command in this process
Process = Callable[..., Completed]  # runs a command in a process of its own
Refusal = Callable[..., str]  # runs a command that must be refused, and returns its message
CompileEngines = Callable[..., list[str]]  # builds engines in this process and returns the reported lines
