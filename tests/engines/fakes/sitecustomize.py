"""With this folder on PYTHONPATH, torch and onnxruntime of every Python process have a simulated GPU.

FAKE_ABSENT names modules, separated by commas, that cannot be imported.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import os
import sys
from collections.abc import Sequence
from types import ModuleType

ABSENT = os.environ.get("FAKE_ABSENT", "").split(",")
FAKES = {"torch": "torch_cuda", "onnxruntime": "onnxruntime_cuda"}  # library → the module that changes it


class _Loader(importlib.abc.Loader):
    """Loads a library with its own loader, and then installs the fake."""

    def __init__(self, loader: importlib.abc.Loader, fake: str) -> None:
        self._loader, self._fake = loader, fake

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        importlib.import_module(self._fake).install(module)


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the libraries that have a fake."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in FAKES:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader, FAKES[fullname])
        return spec


_find_on_path = importlib.machinery.PathFinder.find_spec


def _find_unless_absent(
    cls: type, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
) -> importlib.machinery.ModuleSpec | None:
    return None if fullname in ABSENT else _find_on_path(fullname, path, target)


sys.meta_path.insert(0, _Finder())
importlib.machinery.PathFinder.find_spec = classmethod(_find_unless_absent)
