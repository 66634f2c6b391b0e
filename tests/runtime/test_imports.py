"""What may be imported when: a device has numpy, and nothing else is taken before it is needed."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import bcm_edge

ROOT = Path(bcm_edge.__file__).parent
ROOMS_ABOVE = {"export", "model", "training", "evaluation", "calibration", "jobs", "commands", "ui", "cli"}


def test_import_takes_numpy_and_the_standard_library_alone():
    code = "import sys; import bcm_edge; print(*{name.split('.')[0] for name, module in sys.modules.items() if module})"
    loaded = set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())
    foreign = {name for name in loaded - sys.stdlib_module_names if not name.startswith(("_", "sitecustomize", "cython_runtime"))}
    assert foreign == {"numpy", "bcm_edge"}


def test_runtime_imports_no_room_above_it():
    for file in (ROOT / "runtime").rglob("*.py"):
        depth = len(file.relative_to(ROOT).parts) - 1  # dots that lead back to the package
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and node.level > depth:
                names = {(node.module or "").split(".")[0], *(alias.name for alias in node.names if not node.module)}
                assert not names & ROOMS_ABOVE, f"{file} imports {names}"


def test_documented_names_are_the_exported_ones():
    assert bcm_edge.__all__ == ["BCM", "BcmError", "Schedule", "__version__", "load", "parse_schedule"]
    assert all(hasattr(bcm_edge, name) for name in bcm_edge.__all__)
