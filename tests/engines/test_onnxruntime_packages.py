"""The real onnxruntime-gpu, and the real plugin for TensorRT-RTX, on a machine without a GPU.

tests/engines/fetch_onnxruntime_gpu.sh and tests/tensorrt/fetch.sh download them. The driver is a stub.
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from fixture_types import ROOT

WHEEL, PLUGIN = ROOT / ".onnxruntime-gpu", ROOT / ".tensorrt" / "plugin"
# The functions of the driver and of NVML that the plugin is linked with, besides those of fakes/libcuda.c.
DRIVER = """
    cuCtxCreate_v4 cuCtxDestroy_v2 cuCtxGetCurrent cuCtxPopCurrent_v2 cuCtxPushCurrent_v2
    cuDestroyExternalMemory cuDestroyExternalSemaphore cuExternalMemoryGetMappedBuffer cuGetErrorString
    cuImportExternalMemory cuImportExternalSemaphore cuSignalExternalSemaphoresAsync cuStreamGetCtx
    cuWaitExternalSemaphoresAsync
"""
NVML = "nvmlErrorString nvmlInit_v2 nvmlShutdown nvmlSystemGetDriverVersion"
GRAPH = """\
import sys
from pathlib import Path
from bcm_edge.errors import BackendError
from bcm_edge.runtime.backends.{module} import {provider} as provider
from bcm_edge.runtime.gpu_sessions.session import open_gpu_session
from bcm_edge.runtime.machine.gpu import probe
from bcm_edge.runtime.storage.bundle import open_bundle
bundle = open_bundle(Path(sys.argv[1]))
try:
    open_gpu_session(bundle.graphs("fp32")["inverse"], provider({arguments}probe(), 0))
except BackendError as error:
    print(error)
"""
FALLBACK = """\
import sys
import onnxruntime
from bcm_edge.runtime.storage.bundle import open_bundle
graph = open_bundle(sys.argv[1]).graphs("fp32")["inverse"]
options = onnxruntime.SessionOptions()
options.log_severity_level = 4
print(onnxruntime.InferenceSession(graph, options, providers=["CUDAExecutionProvider"]).get_providers())
"""
REGISTRATION = """\
import threading
import onnxruntime
from bcm_edge.errors import BackendError
from bcm_edge.runtime.backends.onnxruntime_rtx import device_for, register_plugin
from bcm_edge.runtime.machine.gpu import probe
from bcm_edge.runtime.machine.onnxruntime_gpu import missing_onnxruntime_gpu
gpu = probe()
print(missing_onnxruntime_gpu(gpu, "NvTensorRTRTXExecutionProvider"))
threads = [threading.Thread(target=register_plugin) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
register_plugin()
try:
    device_for(gpu)
except BackendError as error:
    print(error)
onnxruntime.unregister_execution_provider_library("NvTensorRTRTXExecutionProvider")
"""


@pytest.fixture(scope="module")
def stubs(driver: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a driver and an NVML that have every function that the plugin is linked with."""
    folder = tmp_path_factory.mktemp("stubs")
    for name, functions in (("libcuda.so.1", DRIVER), ("libnvidia-ml.so.1", NVML)):
        source = folder / "stubs.c"
        source.write_text(
            "".join(f"int {function}(void) {{ return 100; }}\n" for function in functions.split())
        )
        sources = [str(source)]
        if name == "libcuda.so.1":
            sources.append(str(Path(__file__).parent / "fakes" / "libcuda.c"))
        soname = f"-Wl,-soname,{name}"
        subprocess.run(["cc", "-shared", "-fPIC", soname, "-o", str(folder / name), *sources], check=True)
    return folder


@pytest.fixture
def run_real(stubs: Path) -> Callable[..., str]:
    """Return the output of a Python process that imports the packages of a folder."""

    def run(packages: Path, *arguments: str) -> str:
        if not (packages / "complete").is_file():
            script = (
                "tests/engines/fetch_onnxruntime_gpu.sh" if packages == WHEEL else "tests/tensorrt/fetch.sh"
            )
            pytest.skip(f"{packages.name} is not there; run {script}, which prints the reason")
        environment = {
            **os.environ,
            "PYTHONPATH": f"{packages}:{ROOT / 'build' / 'here'}:{os.environ.get('PYTHONPATH', '')}",
            "LD_LIBRARY_PATH": str(stubs),
            "FAKE_CUDA": "13000",
            "FAKE_CAPABILITY": "89",
        }
        completed = subprocess.run(
            [sys.executable, *arguments],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert completed.returncode == 0, completed.stderr
        return completed.stdout

    return run


@pytest.fixture
def without_cudnn() -> None:
    """Skip a test on a machine where the loader finds a library that the providers need."""
    for name in ("libcublas.so.13", "libcudnn.so.9", "libnvinfer.so.10"):
        with suppress(OSError):
            ctypes.CDLL(name)
            pytest.skip(f"this machine has {name}")


@pytest.mark.usefixtures("without_cudnn")
def test_missing_libraries_of_the_real_package_are_named(run_real: Callable[..., str]):
    text = run_real(WHEEL, "-m", "bcm_edge.cli", "doctor", "--json")
    for library in ("libcublasLt.so.13", "libcublas.so.13", "libcurand.so.10", "libcudnn.so.9"):
        assert text.count(library) == 2, library  # for CUDA and for TensorRT
    for library in ("libnvinfer.so.10", "libnvonnxparser.so.10"):
        assert text.count(library) == 1
    assert "\"pip install '.[gpu]' 'tensorrt-cu13>=10,<11'\"" in text
    assert text.count("\"pip install '.[gpu]'\"") == 1


@pytest.mark.usefixtures("without_cudnn")
@pytest.mark.parametrize(
    ("module", "provider", "arguments", "reason"),
    [
        (
            "onnxruntime_cuda",
            "cuda_provider",
            "",
            "fallback to CPU EP has been explicitly disabled by the user",
        ),
        (
            "onnxruntime_tensorrt",
            "tensorrt_provider",
            "bundle, 'fp32', 4, ",
            "Please install TensorRT libraries as mentioned in the GPU requirements page",
        ),
    ],
)
def test_session_of_the_real_package_does_not_fall_back_to_the_cpu(
    digits_bundle: Path,
    run_real: Callable[..., str],
    module: str,
    provider: str,
    arguments: str,
    reason: str,
):
    assert run_real(WHEEL, "-c", FALLBACK, str(digits_bundle)) == "['CPUExecutionProvider']\n"
    code = GRAPH.format(module=module, provider=provider, arguments=arguments)
    message = run_real(WHEEL, "-c", code, str(digits_bundle))
    assert re.match(r"ONNX Runtime 1\.31\.1 with \w+ provider cannot open \S+inverse\.onnx: ", message)
    assert reason in message


def test_plugin_is_registered_once_and_offers_no_device(run_real: Callable[..., str]):
    if shutil.which("cc") is None:
        pytest.skip("no C compiler (cc)")
    assert run_real(PLUGIN, "-c", REGISTRATION).splitlines() == [
        "None",
        "TensorRT-RTX does not support GPU cuda:0 (Fake Orin); its plugin offers no device on this machine",
    ]
