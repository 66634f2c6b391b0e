"""What lies in the version folders: code with the bundle, graphs with their weights, plans."""

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
SERVED = ("runtime", "serving")  # the packages that a server needs
GRAPH = "model.onnx"
CODE = '''"""{says}. Written by bcm-edge."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).with_name("{archive}")))

from bcm_edge.serving.models import {kind} as TritonPythonModel  # noqa: E402, F401
'''


def archive_runtime(file: Path) -> None:
    """The package's runtime as a zip that Python imports from: equal sources give equal bytes."""
    sources = [PACKAGE / "__init__.py", PACKAGE / "errors.py"]
    for folder in SERVED:
        sources += sorted((PACKAGE / folder).rglob("*.py"))
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for source in sources:
            entry = zipfile.ZipInfo(f"bcm_edge/{source.relative_to(PACKAGE).as_posix()}")  # dated 1980
            archive.writestr(entry, source.read_bytes(), zipfile.ZIP_DEFLATED)


class Versions:
    """Writes version folders. What several hold is copied once and has a name in each, where the file system has such; never a name of
    the bundle's own files, which onnx's checker then refuses as an attack."""

    def __init__(self, bundle: Bundle, archive: Path) -> None:
        """archive: of `archive_runtime`, inside the repository."""
        self._bundle = bundle
        self._archive = archive
        self._placed: dict[Path, Path] = {archive: archive}  # source → its copy in the repository

    def write_code(self, version: Path, kind: str, says: str) -> None:
        """One of the classes of serving/models.py, with the package and the bundle that it loads."""
        code = CODE.format(says=says[0].upper() + says[1:], archive=ARCHIVE, kind=kind)
        (version / "model.py").write_text(code, encoding="utf-8")
        self._place(self._archive, version / ARCHIVE)
        root = self._bundle.path
        plans = (file for file in (root / ENGINES).rglob("*") if file.is_file() and not file.is_symlink())
        for file in [root / MANIFEST, *(root / name for name in self._bundle.manifest.files), *plans]:
            self._place(file, version / BUNDLE / file.relative_to(root))

    def write_graph(self, version: Path, precision: str, direction: str) -> None:
        """A direction's graph as it is, and its weights."""
        graph = self._bundle.graphs(precision)[direction]
        self._place(graph, version / GRAPH)
        self._place_weights(graph, version)

    def write_fused(self, version: Path, precision: str, schedule: Schedule) -> None:
        """A schedule as one graph, and the weights."""
        onnx.save(fused_graph(self._bundle, precision, schedule), version / GRAPH)
        self._place_weights(self._bundle.graphs(precision)["forward"], version)

    def write_plans(self, version: Path, engines: Sequence[Engine], direction: str) -> None:
        """A direction's plan for every compute capability."""
        for engine in engines:
            self._place(engine.plan(direction), version / plan_name(engine.facts.capability))

    def _place_weights(self, graph: Path, version: Path) -> None:
        for place in external_files(graph.read_bytes()):
            self._place(graph.parent / place, version / place)

    def _place(self, source: Path, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        if source in self._placed:
            with suppress(OSError):
                os.link(self._placed[source], target)
                return
        shutil.copyfile(source, target)
        self._placed.setdefault(source, target)
