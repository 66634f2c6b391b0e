"""What a provider of ONNX Runtime for GPUs lacks, and the line that installs it.

Each case is a process with a folder of packages of its own: a small module onnxruntime, the metadata that pip
writes, and libraries of a C compiler that are linked as those of NVIDIA's packages are.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from fixture_types import ROOT

from bcm_edge.runtime.machine.onnxruntime_gpu import CUDA, RTX, TENSORRT
from bcm_edge.runtime.machine.shared_libraries import linked_libraries

MODULE = """\
__version__, cuda_version = {version!r}, {cuda!r}
def get_available_providers():
    return {providers!r}
"""
SCRIPT = """\
import sys
from bcm_edge.runtime.machine.gpu import Gpu
from bcm_edge.runtime.machine.onnxruntime_gpu import missing_onnxruntime_gpu
name, capability, cuda, provider = sys.argv[1:]
print(missing_onnxruntime_gpu(Gpu(0, name, capability, 132, 80_000_000_000, False, cuda), provider))
"""
# With numbers of versions that no machine has, except the last one, which is the driver's.
LINKED = ("libcublasLt.so.93", "libcublas.so.93", "libcurand.so.90", "libcudart.so.93", "libcuda.so.1")
FOR_CUDA_12 = (
    "pip install 'onnxruntime-gpu[cuda,cudnn]>=1.23,<1.27' 'cuda-core>=1.2' 'cuda-bindings>=12.9,<13'"
)
PLUGIN_FOR_CUDA_12 = "onnxruntime-ep-nv-tensorrt-rtx-cu12 'cuda-core>=1.2' 'cuda-bindings>=12.9,<13'"


@pytest.fixture
def site(tmp_path: Path) -> Path:
    folder = tmp_path / "site"
    folder.mkdir()
    return folder


@pytest.fixture
def without_libraries() -> None:
    """Skip a test on a machine where the system's loader finds cuDNN or TensorRT."""
    for name in ("libcudnn.so.9", "libnvinfer.so.10"):
        with suppress(OSError):
            ctypes.CDLL(name)
            pytest.skip(f"this machine has {name}")


def record(site: Path, package: str, version: str) -> None:
    """Write the metadata of an installed package, as pip does."""
    folder = site / f"{package.replace('-', '_')}-{version}.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.4\nName: {package}\nVersion: {version}\n")


def install(
    site: Path,
    package: str = "onnxruntime-gpu",
    version: str = "1.31.1",
    cuda: str = "13.0",
    providers: tuple[str, ...] = (TENSORRT, CUDA, "CPUExecutionProvider"),
) -> Path:
    """Install a package with the module onnxruntime; returns the folder of its libraries."""
    record(site, package, version)
    capi = site / "onnxruntime" / "capi"
    capi.mkdir(parents=True, exist_ok=True)
    text = MODULE.format(version=version, cuda=cuda, providers=list(providers))
    (capi.parent / "__init__.py").write_text(text)
    return capi


def compiled(library: Path, linked: tuple[str, ...] = ()) -> Path:
    """Compile a library that is linked with libraries of these names, which need not exist."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler (cc)")
    library.parent.mkdir(parents=True, exist_ok=True)
    command = [
        compiler,
        "-shared",
        "-fPIC",
        "-xc",
        "/dev/null",
        "-xnone",
        "-Wl,--no-as-needed",
        "-o",
        str(library),
    ]
    stubs = library.parent / "stubs"
    for name in linked:
        stubs.mkdir(exist_ok=True)
        subprocess.run([*command[:-1], str(stubs / name), f"-Wl,-soname,{name}"], check=True)
    subprocess.run(
        [*command, f"-Wl,-soname,{library.name}", *(str(stubs / name) for name in linked)], check=True
    )
    shutil.rmtree(stubs, ignore_errors=True)
    return library


def missing(
    site: Path, provider: str = CUDA, gpu: str = "NVIDIA H100", capability: str = "9.0", cuda: str = "13.0"
) -> str:
    """Return what a process reports for a GPU, with these packages before the others."""
    paths = f"{site}:{ROOT / 'build' / 'here'}:{os.environ.get('PYTHONPATH', '')}"
    command = [sys.executable, "-c", SCRIPT, gpu, capability, cuda, provider]
    environment = {**os.environ, "PYTHONPATH": paths}
    completed = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert completed.returncode == 0, completed.stderr
    return completed.stdout.removesuffix("\n")


def test_package_is_not_installed(site: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FAKE_ABSENT", "onnxruntime")
    fakes = ROOT / "tests" / "engines" / "fakes"
    assert missing(fakes) == "onnxruntime-gpu is not installed; pip install '.[gpu]'"
    assert missing(fakes, cuda="12.6") == f"onnxruntime-gpu is not installed; {FOR_CUDA_12}"
    assert missing(fakes, RTX, capability="8.9") == "onnxruntime is not installed; pip install '.[rtx]'"


def test_package_for_the_processor_is_installed(site: Path):
    install(site, "onnxruntime", "1.32.0", "", ("AzureExecutionProvider", "CPUExecutionProvider"))
    expected = (
        "onnxruntime 1.32.0 is installed, which computes on the CPU only; "
        "pip uninstall -y onnxruntime && pip install '.[gpu]'"
    )
    assert missing(site) == missing(site, TENSORRT) == expected


def test_both_packages_are_installed(site: Path):
    install(site, "onnxruntime", "1.32.0", "", ("CPUExecutionProvider",))
    install(site)
    expected = (
        "onnxruntime 1.32.0 and onnxruntime-gpu 1.31.1 are both installed; each overwrites files of the "
        "other, because both contain the module onnxruntime; "
        "pip uninstall -y onnxruntime onnxruntime-gpu && pip install '.[gpu]'"
    )
    assert missing(site) == expected
    assert missing(site, RTX, "NVIDIA L40S", "8.9") == expected.replace(".[gpu]", ".[rtx]")
    assert missing(site, cuda="12.6") == expected.replace("pip install '.[gpu]'", FOR_CUDA_12)
    assert missing(site, RTX, "NVIDIA L40S", "8.9", "12.6").endswith(
        f"pip install 'onnxruntime>=1.25' {PLUGIN_FOR_CUDA_12}"
    )


def test_package_of_another_folder_overwrites_nothing(site: Path, tmp_path: Path):
    install(site)
    other = tmp_path / "other"
    other.mkdir()
    record(other, "onnxruntime", "1.32.0")
    assert missing(Path(f"{site}:{other}")) == "None"


@pytest.mark.usefixtures("without_libraries")
def test_libraries_are_named_one_by_one_and_found_in_the_packages_of_nvidia(site: Path):
    capi = install(site)
    library = compiled(capi / "libonnxruntime_providers_cuda.so", LINKED)
    assert linked_libraries(library)[: len(LINKED)] == list(LINKED)
    assert missing(site) == (
        "onnxruntime-gpu 1.31.1 needs libcublasLt.so.93, libcublas.so.93, libcurand.so.90, libcudart.so.93 "
        "and libcudnn.so.9, which cannot be loaded; pip install '.[gpu]'"
    )
    toolkit = site / "nvidia" / "cu13" / "lib"
    compiled(toolkit / "libcublas.so.93", ("libcublasLt.so.93",))
    for name in ("libcublasLt.so.93", "libcurand.so.90", "libcudart.so.93"):
        compiled(toolkit / name)
    assert missing(site) == (
        "onnxruntime-gpu 1.31.1 needs libcudnn.so.9, which cannot be loaded; pip install '.[gpu]'"
    )
    compiled(site / "nvidia" / "cudnn" / "lib" / "libcudnn.so.9")
    assert missing(site) == "None"


@pytest.mark.usefixtures("without_libraries")
def test_libraries_of_tensorrt_are_those_of_its_package(site: Path):
    capi = install(site)
    compiled(capi / "libonnxruntime_providers_cuda.so", ("libcudart.so.93",))
    compiled(capi / "libonnxruntime_providers_tensorrt.so", ("libnvinfer.so.10", "libnvonnxparser.so.10"))
    assert missing(site, TENSORRT) == (
        "onnxruntime-gpu 1.31.1 needs libcudart.so.93, libnvinfer.so.10, libnvonnxparser.so.10 and "
        "libcudnn.so.9, which cannot be loaded; pip install '.[gpu]' 'tensorrt-cu13>=10,<11'"
    )
    for name in ("libcudart.so.93", "libcudnn.so.9"):
        compiled(site / "nvidia" / "cu13" / "lib" / name)
    assert missing(site, TENSORRT) == (
        "onnxruntime-gpu 1.31.1 needs libnvinfer.so.10 and libnvonnxparser.so.10, which cannot be loaded; "
        "pip install 'tensorrt-cu13>=10,<11'"
    )
    for name in ("libnvinfer.so.10", "libnvonnxparser.so.10"):
        compiled(site / "tensorrt_libs" / name)
    assert missing(site, TENSORRT) == "None"
    assert missing(site) == "None"


def test_provider_that_a_wheel_does_not_contain(site: Path):
    """The wheels for aarch64 have no provider for TensorRT."""
    install(site, providers=(CUDA, "CPUExecutionProvider"))
    assert missing(site, TENSORRT) == (
        "this build of onnxruntime-gpu 1.31.1 does not contain TensorrtExecutionProvider; "
        "use backend='onnxruntime-cuda'"
    )


def test_driver_that_is_older_than_the_package(site: Path):
    install(site)
    assert missing(site, cuda="12.8") == (
        "onnxruntime-gpu 1.31.1 is built for CUDA 13, and the driver supports CUDA 12.8; "
        f"update the driver, or {FOR_CUDA_12}"
    )


@pytest.mark.usefixtures("without_libraries")
def test_package_for_cuda_12_gets_the_libraries_of_its_own_version(site: Path):
    capi = install(site, version="1.23.2", cuda="12.2")
    compiled(capi / "libonnxruntime_providers_cuda.so", ("libcudart.so.92", "libcudnn.so.9"))
    assert missing(site, cuda="12.8") == (
        "onnxruntime-gpu 1.23.2 needs libcudart.so.92 and libcudnn.so.9, which cannot be loaded; "
        "pip install 'onnxruntime-gpu[cuda,cudnn]==1.23.2'"
    )


def test_package_that_cannot_be_imported(site: Path):
    capi = install(site)
    (capi.parent / "__init__.py").write_text("raise ImportError('libonnxruntime.so.1: no such file')\n")
    assert missing(site) == (
        "onnxruntime cannot be imported: libonnxruntime.so.1: no such file; "
        "pip install --force-reinstall '.[gpu]'"
    )


@pytest.mark.parametrize(
    ("capability", "accepted"),
    [("7.5", 0), ("8.0", 0), ("8.6", 1), ("8.7", 0), ("8.9", 1), ("9.0", 0), ("12.1", 1)],
)
def test_gpus_of_tensorrt_rtx(site: Path, capability: str, accepted: int):
    install(site)
    (site / "onnxruntime_ep_nv_tensorrt_rtx.py").touch()
    reason = missing(site, RTX, "NVIDIA GPU", capability)
    refusal = (
        "TensorRT-RTX is for GPUs of compute capability 8.6, 8.9, and 12.0 or newer; NVIDIA GPU has "
        f"{capability}; use backend='onnxruntime-cuda'"
    )
    assert reason == ("None" if accepted else refusal)


def test_plugin_needs_its_package_a_version_and_a_driver(site: Path):
    gpu = ("NVIDIA L40S", "8.9")
    install(site, "onnxruntime", "1.23.2", "", ("CPUExecutionProvider",))
    assert missing(site, RTX, *gpu) == (
        "onnxruntime 1.23.2 is too old, TensorRT-RTX's plugin needs 1.25 or newer; "
        "pip install --upgrade '.[rtx]'"
    )
    shutil.rmtree(site)
    site.mkdir()
    install(site)
    plugin = "onnxruntime-ep-nv-tensorrt-rtx-cu13"
    assert missing(site, RTX, *gpu) == f"{plugin} is not installed; pip install {plugin}"
    other = "onnxruntime-ep-nv-tensorrt-rtx-cu12"
    assert (
        missing(site, RTX, *gpu, cuda="12.6") == f"{other} is not installed; pip install {PLUGIN_FOR_CUDA_12}"
    )
    record(site, plugin, "0.5.0")
    (site / "onnxruntime_ep_nv_tensorrt_rtx.py").touch()
    assert missing(site, RTX, *gpu) == "None"
    assert missing(site, RTX, *gpu, cuda="12.8") == (
        f"{plugin} is built for CUDA 13, and the driver supports CUDA 12.8; update the driver, or run "
        f"pip uninstall -y {plugin} && pip install onnxruntime-ep-nv-tensorrt-rtx-cu12"
    )


def test_files_that_are_not_libraries_are_linked_with_nothing(tmp_path: Path):
    library = compiled(tmp_path / "libsome.so", ("libother.so.1",))
    assert linked_libraries(library)[0] == "libother.so.1"
    content = library.read_bytes()
    for damaged in (
        b"",
        b"\x7fELF",
        b"\x7fELF\x01\x01",
        content[:100],
        content[:64] + bytes(len(content) - 64),
    ):
        library.write_bytes(damaged)
        assert linked_libraries(library) == []
    assert linked_libraries(tmp_path / "absent.so") == []
