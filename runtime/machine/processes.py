"""Processes of their own that run this package from where it lies, installed or not."""

from __future__ import annotations

import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[2]

_PROLOGUE = """
import importlib.util, sys
root, *arguments = sys.argv[1:]
spec = importlib.util.spec_from_file_location("bcm_edge", root + "/__init__.py", submodule_search_locations=[root])
package = importlib.util.module_from_spec(spec)
sys.modules["bcm_edge"] = package
spec.loader.exec_module(package)
"""


def python_command(code: str, *arguments: object) -> list[str]:
    """The command of a process that runs `code`, in which `package` is bcm_edge and `arguments` are these, as texts."""
    return [sys.executable, "-c", _PROLOGUE + code, str(PACKAGE), *map(str, arguments)]
