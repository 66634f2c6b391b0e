"""Tests on an NVIDIA GPU: `make test-gpu`. They are skipped without a GPU, some also without TensorRT.

`make rehearse` runs them on the CPU, over fakes of the driver, cuda-core, TensorRT, the CUDA of torch and the
providers of ONNX Runtime.
"""

from __future__ import annotations

import importlib.util
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from bcm_edge.errors import BackendError, BuildError
from bcm_edge.export.engines.build import build
from bcm_edge.export.engines.plan import plan_build
from bcm_edge.runtime.backends import backend_module
from bcm_edge.runtime.engines.facts import BuildOptions
from bcm_edge.runtime.machine.gpu import Gpu, probe
from bcm_edge.runtime.machine.installed import missing_cuda_core, missing_tensorrt
from bcm_edge.runtime.storage.bundle import open_bundle

Built = Callable[[str], Path]
Ready = Callable[[str, str], Path]


@pytest.fixture(scope="session", autouse=True)
def gpu() -> Gpu:
    """The GPU of this machine."""
    try:
        return probe()
    except BackendError as error:
        pytest.skip(f"needs an NVIDIA GPU: {error}")


@pytest.fixture(scope="session")
def cuda_core(gpu: Gpu) -> None:
    """Skip the test without cuda-core."""
    if reason := missing_cuda_core(gpu):
        pytest.skip(reason)


@pytest.fixture(scope="session")
def tensorrt(gpu: Gpu, cuda_core: None) -> None:
    """Skip the test without TensorRT."""
    if reason := missing_tensorrt(gpu):
        pytest.skip(reason)


@pytest.fixture(scope="session")
def built(tensorrt: None, gpu_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """built(precision): the bundle of the shipped model, with an engine of that precision. Do not change it.

    An engine is built when a test needs it first. A failed build fails every test that needs it.
    """
    bundle = shutil.copytree(gpu_bundle, tmp_path_factory.mktemp("engines") / "digits.bundle")
    failed: dict[str, BaseException] = {}

    def get(precision: str) -> Path:
        if precision in failed:
            raise failed[precision]
        try:
            plan = plan_build(open_bundle(bundle), BuildOptions(precision))
        except BuildError as error:  # TensorRT or the GPU does not have this precision
            pytest.skip(str(error))
        if plan.present() is None:
            try:
                build(plan, print, lambda *_: None)
            except Exception as error:
                failed[precision] = error
                raise
        return bundle

    return get


@pytest.fixture(scope="session")
def ready(gpu: Gpu, gpu_bundle: Path, request: pytest.FixtureRequest) -> Ready:
    """ready(backend, precision): the bundle of the shipped model for a backend. Do not change it.

    The test is skipped if the backend cannot run here. Engines are built when a test needs them first.
    """

    def get(backend: str, precision: str) -> Path:
        if reason := backend_module(backend).unavailable(precision):
            pytest.skip(reason)
        if backend == "tensorrt":
            return request.getfixturevalue("built")(precision)
        return gpu_bundle

    return get


@pytest.fixture(scope="session")
def players() -> ModuleType:
    """benchmarks/networks.py. It is loaded by its path, because tests/ has a networks.py too."""
    path = Path(__file__).resolve().parent.parent.parent / "benchmarks" / "networks.py"
    spec = importlib.util.spec_from_file_location("benchmarks_networks", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
