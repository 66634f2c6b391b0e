"""Start processes that import this package, whether it is installed or not."""

from __future__ import annotations

import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[2]

_PROLOGUE = """
import importlib.util, sys
root, *arguments = sys.argv[1:]
file = root + "/__init__.py"
spec = importlib.util.spec_from_file_location("bcm_edge", file, submodule_search_locations=[root])
package = importlib.util.module_from_spec(spec)
sys.modules["bcm_edge"] = package
spec.loader.exec_module(package)
"""


def python_command(code: str, *arguments: object) -> list[str]:
    """Return the command of a process that runs `code`.

    In the code, `package` is the module bcm_edge, and `arguments` is a list of these arguments as strings.
    """
    return [sys.executable, "-c", _PROLOGUE + code, str(PACKAGE), *map(str, arguments)]
