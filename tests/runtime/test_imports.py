"""Imports: a device has only numpy, and other packages are imported when they are needed."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import bcm_edge

ROOT = Path(bcm_edge.__file__).parent
# A module may import from the layers below its own, and from its own layer.
# A name stands for a module, or for a folder with everything in it.
LAYERS = (
    ("cli",),
    ("commands", "integrations"),
    ("evaluation", "jobs", "ui"),
    ("export",),
    ("training",),
    ("calibration",),
    ("model", "serving"),
    ("runtime.loading",),
    ("runtime.pipeline", "runtime.editing", "runtime.latent_editing", "runtime.checks"),
    ("runtime.opened", "runtime.tasks"),
    ("runtime.keyword_arguments",),
    ("runtime.arguments",),
    ("runtime.chain",),
    ("runtime.backends",),
    ("runtime.gpu_sessions",),
    ("runtime.engines", "runtime.pictures"),
    ("runtime.storage",),
    ("runtime.machine",),
    (
        "runtime.accuracy",
        "runtime.ahead",
        "runtime.batches",
        "runtime.calls",
        "runtime.classes",
        "runtime.noise",
        "runtime.pixels",
        "runtime.schedule",
    ),
    ("runtime.log", "runtime.wording"),
    ("errors",),
)


def test_import_takes_numpy_and_the_standard_library_alone():
    code = (
        "import sys; import bcm_edge; "
        "print(*{name.split('.')[0] for name, module in sys.modules.items() if module})"
    )
    loaded = set(
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.split()
    )
    foreign = {
        name
        for name in loaded - sys.stdlib_module_names
        if not name.startswith(("_", "sitecustomize", "cython_runtime"))
    }
    assert foreign == {"numpy", "bcm_edge"}


def test_imports_point_downwards():
    """Each module imports, at its top or in a function, only from its own layer and those below."""
    upward = []
    for name, imported in imports().items():
        for other in imported:
            if layer(other) < layer(name):
                upward.append(f"{name} imports {other}")
    assert not upward, "\n".join(upward)


def test_no_module_imports_itself_through_others():
    graph = imports()
    finished: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, f"import circle: {' → '.join((*path, name))}"
        if name not in finished:
            for other in graph[name]:
                visit(other, (*path, name))
            finished.add(name)

    for name in graph:
        visit(name, ())


def layer(name: str) -> int:
    """The index in LAYERS of a module's own name or of the longest folder that it lies in."""
    parts = name.split(".")
    folders = [".".join(parts[:length]) for length in range(len(parts), 0, -1)]
    for folder in folders:
        for index, layer_names in enumerate(LAYERS):
            if folder in layer_names:
                return index
    raise AssertionError(f"{name} is in no layer of LAYERS")


def imports() -> dict[str, set[str]]:
    """Module → the modules of this package that it imports. Packages (__init__.py) are left out."""
    folders = {name.partition(".")[0] for names in LAYERS for name in names}
    sources = {
        ".".join(file.relative_to(ROOT).with_suffix("").parts): file
        for folder in folders
        for file in (ROOT / f"{folder}.py", *(ROOT / folder).rglob("*.py"))
        if file.exists() and file.name != "__init__.py"
    }
    return {
        name: {other for other in imported_names(name, file) if other in sources}
        for name, file in sources.items()
    }


def imported_names(name: str, file: Path) -> set[str]:
    """Every module that the relative imports of a file can mean, by its name below the package."""
    package = name.split(".")[:-1]
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = [*package[: len(package) - node.level + 1], *([node.module] if node.module else [])]
            names.add(".".join(base))
            names |= {".".join((*base, alias.name)) for alias in node.names}
    return names
