"""What lies in the version folders: code with the bundle, graphs with their weights, plans."""

from __future__ import annotations

import os
import shutil
import zipfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import onnx

from ...runtime.bundle import MANIFEST, Bundle
from ...runtime.engines.store import ENGINES, Engine
from ...runtime.external_data import external_files
from ...runtime.schedule import Schedule
from ...runtime.triton.models import BUNDLE
from ..fused import fused_graph
from .configs import plan_name

PACKAGE = Path(__file__).parents[2]
ARCHIVE = "bcm_edge.zip"
GRAPH = "model.onnx"
CODE = '''"""{says}. Written by bcm-edge."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).with_name("{archive}")))

from bcm_edge.runtime.triton.models import {kind} as TritonPythonModel  # noqa: E402, F401
'''


def archive_runtime(file: Path) -> None:
    """The package's runtime as a zip that Python imports from: equal sources give equal bytes."""
    sources = [PACKAGE / "__init__.py", PACKAGE / "errors.py", *sorted((PACKAGE / "runtime").rglob("*.py"))]
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for source in sources:
            entry = zipfile.ZipInfo(f"bcm_edge/{source.relative_to(PACKAGE).as_posix()}")  # dated 1980
            archive.writestr(entry, source.read_bytes(), zipfile.ZIP_DEFLATED)


def write_code(version: Path, kind: str, says: str, bundle: Bundle, archive: Path) -> None:
    """One of the classes of runtime/triton/models.py, with the package and the bundle that it loads."""
    (version / "model.py").write_text(CODE.format(says=says[0].upper() + says[1:], archive=ARCHIVE, kind=kind), encoding="utf-8")
    _link(archive, version / ARCHIVE)
    plans = (file for file in (bundle.path / ENGINES).rglob("*") if file.is_file() and not file.is_symlink())
    for file in [bundle.path / MANIFEST, *(bundle.path / name for name in bundle.manifest.files), *plans]:
        _link(file, version / BUNDLE / file.relative_to(bundle.path))


def write_graph(version: Path, bundle: Bundle, precision: str, direction: str) -> None:
    """A direction's graph as it is, and its weights."""
    graph = bundle.graphs(precision)[direction]
    _link(graph, version / GRAPH)
    _link_weights(graph, version)


def write_fused(version: Path, bundle: Bundle, precision: str, schedule: Schedule) -> None:
    """A schedule as one graph, and the weights."""
    onnx.save(fused_graph(bundle, precision, schedule), version / GRAPH)
    _link_weights(bundle.graphs(precision)["forward"], version)


def write_plans(version: Path, engines: Sequence[Engine], direction: str) -> None:
    """A direction's plan for every compute capability."""
    for engine in engines:
        assert engine.facts
        _link(engine.plan(direction), version / plan_name(engine.facts.capability))


def _link_weights(graph: Path, version: Path) -> None:
    for place in external_files(graph.read_bytes()):
        _link(graph.parent / place, version / place)


def _link(source: Path, target: Path) -> None:
    """A second name of the file where the file system has such, else a copy."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with suppress(OSError):
        os.link(source.resolve(), target)
        return
    shutil.copyfile(source, target)
