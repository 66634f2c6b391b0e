"""A GPU that is not there: a stub of the driver, and stand-ins for cuda-core and TensorRT whose engines compute with ONNX Runtime."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from bcm_edge.export.engines.build import build
from bcm_edge.export.engines.plan import plan_build
from bcm_edge.runtime.engines.facts import BuildOptions
from bcm_edge.runtime.machine import gpu
from bcm_edge.runtime.storage.bundle import open_bundle

FAKES = Path(__file__).parent / "fakes"
OVER_THEM = (
    "engines.adapter",
    "engines.loaded",
    "engines.memory",
    "engines.device_chain",
)  # modules of runtime/ that import them


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with libcuda.so.1, which answers what FAKE_… in the environment says."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler here to make a stub of the NVIDIA driver with")
    folder = tmp_path_factory.mktemp("driver")
    command = [compiler, "-shared", "-fPIC", "-o", str(folder / "libcuda.so.1"), str(FAKES / "libcuda.c")]
    subprocess.run(command, check=True)
    return folder


@pytest.fixture(scope="session")
def surroundings(driver: Path) -> dict[str, str]:
    """The environment in which a process finds driver and stand-ins."""
    return {"PYTHONPATH": str(FAKES), "LD_LIBRARY_PATH": str(driver)}


@pytest.fixture
def run(
    process: Callable[..., subprocess.CompletedProcess[str]], surroundings: dict[str, str]
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`python cli.py …` where driver and stand-ins are found; keywords are more of the environment."""
    return lambda *arguments, **more: process(*arguments, **{**surroundings, **more})


@pytest.fixture
def record(
    monkeypatch: pytest.MonkeyPatch, driver: Path, surroundings: dict[str, str]
) -> Iterator[ModuleType]:
    """Driver and stand-ins in this process and its children; yields fakes/gpu_record.py, which knows what was done."""
    library = ctypes.CDLL(str(driver / "libcuda.so.1"))
    monkeypatch.setattr(
        gpu, "_driver", lambda: lambda function, *arguments: int(getattr(library, function)(*arguments))
    )
    for name, value in surroundings.items():
        monkeypatch.setenv(name, value)
    monkeypatch.syspath_prepend(str(FAKES))
    _forget()
    import gpu_record

    gpu_record.reset()
    yield gpu_record
    _forget()


def _forget() -> None:
    for name in list(sys.modules):
        if name.partition(".")[0] in ("cuda", "tensorrt", "gpu_record") or name in {
            f"bcm_edge.runtime.{over}" for over in OVER_THEM
        }:
            del sys.modules[name]
    for name in OVER_THEM:  # a package keeps its modules as attributes
        sys.modules["bcm_edge.runtime.engines"].__dict__.pop(name.rpartition(".")[2], None)


@pytest.fixture(scope="session")
def built_bundle(
    typed_bundle: Path, surroundings: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The shipped model with engines in fp32, fp16 and int8 for the GPU that is not there. Every test reads it, none writes to it."""
    bundle = shutil.copytree(typed_bundle, tmp_path_factory.mktemp("built") / "digits.bundle")
    for precision in ("fp32", "int8", "fp16"):
        command = [sys.executable, "-m", "bcm_edge.cli", "build", str(bundle), "--precision", precision]
        ended = subprocess.run(
            command, env={**os.environ, **surroundings}, capture_output=True, text=True, check=False
        )
        assert ended.returncode == 0, ended.stderr
    return bundle


@pytest.fixture
def built_copy(built_bundle: Path, tmp_path: Path) -> Path:
    """A bundle with engines, of the test's own."""
    return shutil.copytree(built_bundle, tmp_path / "built.bundle")


@pytest.fixture
def compile_engines(record: ModuleType) -> Callable[..., list[str]]:
    """Build engines in this process (the compiling is a child's); returns what was reported."""

    def run(bundle: Path, *, device: int = 0, **options: Any) -> list[str]:
        lines: list[str] = []
        build(plan_build(open_bundle(bundle), BuildOptions(**options), device), lines.append, lambda *_: None)
        return lines

    return run
