"""A simulated GPU: a stub of its driver, and fakes of cuda-core and TensorRT (they use ONNX Runtime)."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from fixture_types import CompileEngines, Completed, Process

from bcm_edge.export.engines.build import build
from bcm_edge.export.engines.plan import plan_build
from bcm_edge.runtime.engines.facts import BuildOptions
from bcm_edge.runtime.machine import gpu
from bcm_edge.runtime.storage.bundle import open_bundle

FAKES = Path(__file__).parent / "fakes"
# The modules of bcm_edge.runtime that import cuda-core or TensorRT.
IMPORTERS = (
    "engines.adapter",
    "engines.device_chain",
    "engines.graph_recording",
    "engines.loaded",
    "engines.memory",
    "engines.messages",
    "gpu_sessions.chain",
)


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with libcuda.so.1, a stub of the driver. Variables FAKE_… determine its answers."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler (cc) for the stub of the NVIDIA driver")
    folder = tmp_path_factory.mktemp("driver")
    command = [compiler, "-shared", "-fPIC", "-o", str(folder / "libcuda.so.1"), str(FAKES / "libcuda.c")]
    subprocess.run(command, check=True)
    return folder


@pytest.fixture(scope="session")
def surroundings(driver: Path) -> dict[str, str]:
    """The environment variables with which a process uses the stub and the fakes."""
    modules = os.pathsep.join(filter(None, (str(FAKES), os.environ.get("PYTHONPATH"))))
    return {"PYTHONPATH": modules, "LD_LIBRARY_PATH": str(driver)}


@pytest.fixture
def run(process: Process, surroundings: dict[str, str]) -> Process:
    """Run `python cli.py …` with the stub and the fakes. Keywords are more environment variables."""

    def run_with_fakes(*arguments: object, cwd: Path | None = None, **more: str) -> Completed:
        return process(*arguments, cwd=cwd, **{**surroundings, **more})

    return run_with_fakes


@pytest.fixture
def record(
    monkeypatch: pytest.MonkeyPatch, driver: Path, surroundings: dict[str, str]
) -> Iterator[ModuleType]:
    """Use the stub and the fakes in this process and its children; yields the module fakes/gpu_record.py."""
    library = ctypes.CDLL(str(driver / "libcuda.so.1"))
    monkeypatch.setattr(
        gpu, "_driver", lambda: lambda function, *arguments: int(getattr(library, function)(*arguments))
    )
    for name, value in surroundings.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "")  # `probe` sets it, and it must not stay after the test
    monkeypatch.syspath_prepend(str(FAKES))
    _forget()
    import gpu_record

    gpu_record.reset()
    yield gpu_record
    _forget()


@pytest.fixture
def onnxruntime_gpu(record: ModuleType) -> Iterator[ModuleType]:
    """onnxruntime with the fakes of its GPU providers, in this process; yields fakes/gpu_record.py."""
    import onnxruntime
    import onnxruntime_cuda

    uninstall = onnxruntime_cuda.install(onnxruntime)
    yield record
    uninstall()


def _forget() -> None:
    """Remove the modules that import fakes, and the fakes."""
    fakes = {"cuda", "tensorrt", *(path.stem for path in FAKES.glob("*.py"))}
    for name in list(sys.modules):
        if name.partition(".")[0] in fakes or name in {f"bcm_edge.runtime.{module}" for module in IMPORTERS}:
            del sys.modules[name]
    for name in IMPORTERS:  # a package has its modules as attributes
        package, _, module = name.partition(".")
        if loaded := sys.modules.get(f"bcm_edge.runtime.{package}"):
            loaded.__dict__.pop(module, None)


@pytest.fixture(scope="session")
def built_bundle(
    typed_bundle: Path,
    process: Process,
    surroundings: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The shipped model with engines in fp32, fp16 and int8 for the simulated GPU. Do not change it."""
    bundle = shutil.copytree(typed_bundle, tmp_path_factory.mktemp("built") / "digits.bundle")
    for precision in ("fp32", "int8", "fp16"):
        completed = process("build", bundle, "--precision", precision, **surroundings)
        assert completed.returncode == 0, completed.stderr
    return bundle


@pytest.fixture
def built_copy(built_bundle: Path, tmp_path: Path) -> Path:
    """A copy of the bundle with engines, which a test may change."""
    return shutil.copytree(built_bundle, tmp_path / "built.bundle")


@pytest.fixture
def compile_engines(record: ModuleType) -> CompileEngines:
    """Build engines in this process, except for the compilation; returns the reported lines."""

    def run(bundle: Path, *, device: int = 0, **options: Any) -> list[str]:
        lines: list[str] = []
        build(plan_build(open_bundle(bundle), BuildOptions(**options), device), lines.append, lambda *_: None)
        return lines

    return run
