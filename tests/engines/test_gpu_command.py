"""benchmarks/gpu.py over stand-ins for the GPU: its environment, and its engine."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import ModuleType

import pytest
from gpu_figures import gpu


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("digits")
    gpu.export_network(str(folder), "digits")
    return folder / "bundle"


@pytest.fixture
def bundle(exported: Path, tmp_path: Path) -> Path:
    """The digits as the benchmark exports them; a copy of the test's own."""
    return shutil.copytree(exported, tmp_path / "bundle")


def test_environment_has_the_gpu_and_its_libraries(record: ModuleType) -> None:
    environment = gpu.environment()
    assert environment["gpu"].startswith("Fake Orin (compute capability 8.7, ")
    assert environment["versions"]["tensorrt"] == "10.3.0"
    assert environment["versions"]["torch"].startswith("2.")
    assert json.loads(json.dumps(environment)) == environment


def test_engine_is_built_once_for_all_batch_sizes(record: ModuleType, bundle: Path) -> None:
    gpu.build_engine(str(bundle), 256)
    (folder,) = (bundle / "engines").iterdir()
    facts = (folder / "engine.json").read_text()
    assert json.loads(facts)["options"]["batch"] == [1, 16, 256]
    gpu.build_engine(str(bundle), 256)
    assert (folder / "engine.json").read_text() == facts


def test_build_that_runs_out_of_memory_says_so(
    record: ModuleType,
    bundle: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FAKE_BUILD", "memory")
    reason = gpu.child("build", {"bundle": str(bundle), "largest": 256}, 600.0, "too long")
    assert reason.startswith("the build ran out of memory")
