"""Write the version folders of models: code with a bundle, graphs with their weights, plans."""

from __future__ import annotations

import os
import shutil
import zipfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import onnx

from ...runtime.engines.store import ENGINES, Engine
from ...runtime.schedule import Schedule
from ...runtime.storage.bundle import Bundle
from ...runtime.storage.external_data import external_files
from ...runtime.storage.manifest import MANIFEST
from ...serving.models import BUNDLE
from ..fused import fused_graph
from .configs import plan_name

PACKAGE = Path(__file__).parents[2]
ARCHIVE = "bcm_edge.zip"
SERVED = ("runtime", "serving")  # the parts of the package that a server needs
GRAPH = "model.onnx"
CODE = '''"""{description}. Written by bcm-edge."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).with_name("{archive}")))

from bcm_edge.serving.models import {class_name} as TritonPythonModel  # noqa: E402, F401
'''


def archive_runtime(file: Path) -> None:
    """Write the package as a zip that Python can import from. Equal sources give equal bytes."""
    sources = [PACKAGE / "__init__.py", PACKAGE / "errors.py"]
    for folder in SERVED:
        sources += sorted((PACKAGE / folder).rglob("*.py"))
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for source in sources:
            # Without a date of its own, every entry is dated 1980.
            entry = zipfile.ZipInfo(f"bcm_edge/{source.relative_to(PACKAGE).as_posix()}")
            archive.writestr(entry, source.read_bytes(), zipfile.ZIP_DEFLATED)


class VersionWriter:
    """A writer of the version folders of a repository.

    A file that several folders need is copied once and hard-linked in the others, if the file system supports
    that. The bundle's own files are never linked: onnx's checker refuses hard links as an attack.
    """

    def __init__(self, bundle: Bundle, archive: Path) -> None:
        """archive: the file that `archive_runtime` writes, inside the repository."""
        self._bundle = bundle
        self._archive = archive
        self._copies: dict[Path, Path] = {archive: archive}  # source → its copy in the repository

    def write_code(self, version: Path, class_name: str, description: str) -> None:
        """Write model.py for a class of serving/models.py, with the package and the bundle that it loads."""
        sentence = description[0].upper() + description[1:]
        code = CODE.format(description=sentence, archive=ARCHIVE, class_name=class_name)
        (version / "model.py").write_text(code, encoding="utf-8")
        self._copy(self._archive, version / ARCHIVE)
        for file in self._bundle_files():
            self._copy(file, version / BUNDLE / file.relative_to(self._bundle.path))

    def write_graph(self, version: Path, precision: str, direction: str) -> None:
        """Write the graph of a direction and its weights, unchanged."""
        graph = self._bundle.graphs(precision)[direction]
        self._copy(graph, version / GRAPH)
        self._copy_weights(graph, version)

    def write_fused(self, version: Path, precision: str, schedule: Schedule) -> None:
        """Write a schedule as one graph, and the weights."""
        onnx.save(fused_graph(self._bundle, precision, schedule), version / GRAPH)
        self._copy_weights(self._bundle.graphs(precision)["forward"], version)

    def write_plans(self, version: Path, engines: Sequence[Engine], direction: str) -> None:
        """Write the plan of a direction for every compute capability."""
        for engine in engines:
            self._copy(engine.plan(direction), version / plan_name(engine.facts.capability))

    def _bundle_files(self) -> list[Path]:
        """The manifest, the files that it lists, and the engines."""
        root = self._bundle.path
        listed = [root / name for name in self._bundle.manifest.files]
        engine_files = [
            file for file in (root / ENGINES).rglob("*") if file.is_file() and not file.is_symlink()
        ]
        return [root / MANIFEST, *listed, *engine_files]

    def _copy_weights(self, graph: Path, version: Path) -> None:
        for name in external_files(graph.read_bytes()):
            self._copy(graph.parent / name, version / name)

    def _copy(self, source: Path, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        if source in self._copies:
            with suppress(OSError):  # no hard links here: copy again
                os.link(self._copies[source], target)
                return
        shutil.copyfile(source, target)
        self._copies.setdefault(source, target)
