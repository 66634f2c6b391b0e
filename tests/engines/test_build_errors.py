"""bcm-edge build where it fails: no GPU, too little memory, a crash, wrong types or inaccurate images."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from fixture_types import ROOT, Cli, CompileEngines, Process

from bcm_edge.errors import BackendError, BuildError, ParityError

FAKES = Path(__file__).parent / "fakes"


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"LD_LIBRARY_PATH": ""}, "no NVIDIA driver on this machine (libcuda.so.1 cannot be loaded)"),
        ({"FAKE_INIT": "100"}, "no NVIDIA GPU can be used: the driver reports CUDA_ERROR_NO_DEVICE"),
        ({"FAKE_GPUS": "0"}, "no GPU cuda:0 on this machine; available: none"),
        ({"PYTHONPATH": ""}, "tensorrt is not installed; pip install '.[trt10]'"),
        ({"FAKE_TENSORRT": "8.5.2"}, "TensorRT 8.5.2 is too old; 8.6 (JetPack 6.0) or newer is needed"),
    ],
)
def test_missing_gpu_or_library_is_one_line(
    typed_copy: Path, run: Process, environment: dict[str, str], message: str
):
    completed = run("build", typed_copy, cwd=ROOT, **environment)
    assert completed.returncode == 2 and completed.stdout == ""
    needs = "build needs an NVIDIA GPU with its driver, TensorRT 8.6 or newer, and cuda-core"
    # Where only TensorRT is too old, ONNX Runtime can use the GPU.
    on_gpu = "onnxruntime-cuda or " if "FAKE_TENSORRT" in environment else ""
    works = (
        "Run build on the machine that will use the engines. "
        f"On this machine, the bundle runs with --backend {on_gpu}onnxruntime or openvino"
    )
    assert completed.stderr == f"error: {needs}: {message}. {works}\n"


def test_incompatible_cuda_core_and_cuda_bindings(typed_copy: Path, run: Process, tmp_path: Path):
    """cuda-core 1.2.2 fails in this way with cuda-bindings 12.8.0."""
    for name, code in {"core": "import cuda.bindings.cynvvm", "bindings": ""}.items():
        (tmp_path / "cuda" / name).mkdir(parents=True)
        (tmp_path / "cuda" / name / "__init__.py").write_text(code)
    (tmp_path / "cuda" / "__init__.py").touch()
    for name, version in {"cuda_core": "1.2.2", "cuda_bindings": "12.8.0"}.items():
        folder = tmp_path / f"{name}-{version}.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: {version}\n"
        )
    completed = run("build", typed_copy, PYTHONPATH=f"{tmp_path}:{FAKES}", cwd=ROOT)
    fix = "pip install --upgrade '.[trt10]'. Run build on the machine"
    problem = "cuda-core 1.2.2 and cuda-bindings 12.8.0 do not work together"
    reason = f"{problem} (No module named 'cuda.bindings.cynvvm')"
    assert completed.returncode == 2
    assert f"{reason}; {fix}" in completed.stderr
    (tmp_path / "cuda_core-1.2.2.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: cuda-core\nVersion: 0.5.1\n"
    )
    completed = run("build", typed_copy, PYTHONPATH=f"{tmp_path}:{FAKES}", cwd=ROOT)
    assert f"cuda-core 0.5.1 is too old, 1.2 or newer is needed; {fix}" in completed.stderr


@pytest.mark.parametrize(
    ("fault", "error", "message"),
    [
        (
            "memory",
            BuildError,
            r"ran out of memory: 6.0 GB of 8.0 were free when it began\. "
            "Close other programs that use the GPU, or try --opt-level 1",
        ),
        (
            "killed",
            BuildError,
            r"ran out of memory: 6.0 GB of 8.0 were free when it began\. "
            "Close other programs that use the GPU",
        ),
        (
            "driver",
            BackendError,
            r"TensorRT 10\.3\.0 cannot start on this GPU and driver: "
            "CUDA initialization failure with error: 35",
        ),
        (
            "refused",
            BuildError,
            r"forward: TensorRT 10\.3\.0 cannot build it: Internal Error: no such kernel",
        ),
    ],
)
def test_failed_build_leaves_the_bundle_unchanged(
    typed_copy: Path,
    compile_engines: CompileEngines,
    monkeypatch: pytest.MonkeyPatch,
    fault: str,
    error: type[Exception],
    message: str,
):
    manifest = (typed_copy / "manifest.json").read_text()
    monkeypatch.setenv("FAKE_BUILD", fault)
    with pytest.raises(error, match=message):
        compile_engines(typed_copy)
    assert not list((typed_copy / "engines").iterdir())
    assert (typed_copy / "manifest.json").read_text() == manifest


def test_out_of_memory_on_a_jetson_advises_to_close_the_desktop(
    typed_copy: Path, compile_engines: CompileEngines, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("FAKE_BUILD", "killed")
    monkeypatch.setenv("FAKE_INTEGRATED", "1")
    monkeypatch.setattr("bcm_edge.export.engines.child.workspace_limit", lambda *_: 2 << 30)
    smaller = "The workspace was 2048M: try --workspace 1024M, --opt-level 1 or a smaller --batch"
    with pytest.raises(BuildError, match=f"{smaller}; on a Jetson close the desktop and add swap"):
        compile_engines(typed_copy)


def test_convolutions_in_more_bits_are_a_warning(
    typed_copy: Path, compile_engines: CompileEngines, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("FAKE_BUILD", "one wider")
    warnings = [line for line in compile_engines(typed_copy) if line.startswith("warning")]
    text = "1 of 27 convolutions compute in more bits than fp16 asks for: input_blocks.0.0/Conv in fp32"
    assert warnings == [f"warning: forward: {text}", f"warning: inverse: {text}"]
    (folder,) = (typed_copy / "engines").iterdir()
    facts = json.loads((folder / "engine.json").read_text())
    assert facts["wider"] == {
        direction: {"input_blocks.0.0/Conv": "fp32"} for direction in ("forward", "inverse")
    }
    assert facts["types"]["forward"] == {"fp16": 26, "fp32": 1}


def test_warning_names_only_the_first_convolutions(
    typed_copy: Path, compile_engines: CompileEngines, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("FAKE_BUILD", "wider")
    warnings = [line for line in compile_engines(typed_copy) if line.startswith("warning")]
    assert warnings[0].startswith(
        "warning: forward: 27 of 27 convolutions compute in more bits than fp16 asks for: "
        "input_blocks.0.0/Conv"
    )
    assert warnings[0].endswith(" in fp32 and 22 more (engine.json lists them)")


def test_strict_types_refuses_a_convolution_in_more_bits(typed_copy: Path, run: Process):
    message = (
        "error: forward: 1 of 27 convolutions compute in more bits than fp16 asks for: "
        "input_blocks.0.0/Conv in fp32"
    )
    completed = run("build", typed_copy, "--strict-types", FAKE_BUILD="one wider")
    assert (completed.returncode, completed.stdout) == (1, "")
    assert message in completed.stderr and not list((typed_copy / "engines").iterdir())
    assert run("build", typed_copy, FAKE_BUILD="one wider").returncode == 0
    completed = run("build", typed_copy, "--strict-types")  # the engine was built without the option
    assert completed.returncode == 1 and message in completed.stderr
    assert run("build", typed_copy, "--strict-types", "--force").returncode == 0
    assert "up to date" in run("build", typed_copy, "--strict-types").stderr


def test_inaccurate_engine_is_refused_although_its_types_are_only_a_warning(
    typed_copy: Path, compile_engines: CompileEngines, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("FAKE_BUILD", "one wider")
    monkeypatch.setattr("bcm_edge.export.engines.build.BOUNDS", {"fp16": 1e-6})
    with pytest.raises(ParityError):
        compile_engines(typed_copy)
    assert not list((typed_copy / "engines").iterdir())


@pytest.mark.parametrize(("integrated", "limited"), [("0", []), ("1", ["WORKSPACE"])])
def test_workspace_is_limited_on_an_integrated_gpu(
    typed_copy: Path,
    compile_engines: CompileEngines,
    monkeypatch: pytest.MonkeyPatch,
    integrated: str,
    limited: list[str],
):
    monkeypatch.setenv("FAKE_INTEGRATED", integrated)
    compile_engines(typed_copy)
    (folder,) = (typed_copy / "engines").iterdir()
    assert list(json.loads((folder / "forward.plan").read_text())["limits"]) == limited


def test_no_kernel_fits_into_a_small_workspace(
    typed_copy: Path, compile_engines: CompileEngines, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("FAKE_BUILD", "memory")
    with pytest.raises(
        BuildError,
        match="No kernel fits into the workspace of 64M: try a larger --workspace or a smaller --batch",
    ):
        compile_engines(typed_copy, workspace=64 << 20)


def test_inaccurate_engine_is_not_kept(
    typed_copy: Path, compile_engines: CompileEngines, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("bcm_edge.export.engines.build.BOUNDS", {"fp16": 1e-6})
    with pytest.raises(
        ParityError,
        match=r"the engine differs from torch by more than the bound of 1e-06\. "
        r"The worst is .*No engine was kept\.",
    ):
        compile_engines(typed_copy)
    assert not list((typed_copy / "engines").iterdir())


def test_inaccurate_single_engine_in_8_bits_has_advice(
    typed_copy: Path, compile_engines: CompileEngines, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("bcm_edge.export.engines.build.BOUNDS", {"int8": 1e-6})
    with pytest.raises(
        ParityError, match=r"No engine was kept\. A single engine uses .* without --single-engine"
    ):
        compile_engines(typed_copy, precision="int8", single=True)
    with pytest.raises(ParityError, match=r"No engine was kept\.$"):
        compile_engines(typed_copy, precision="int8")


def test_crash_is_reported_with_the_last_line_of_stderr(
    typed_copy: Path, compile_engines: CompileEngines, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(
        "bcm_edge.export.engines.child.CHILD",
        "import os, sys\nprint('half a word', file=sys.stderr, flush=True)\nos.abort()\n",
    )
    with pytest.raises(BuildError, match="the compiling process ended with signal SIGABRT: half a word"):
        compile_engines(typed_copy)


def test_bundle_without_a_recording_is_built_without_verification(
    tmp_path: Path, cli: Cli, compile_engines: CompileEngines
):
    assert cli("export", "-o", tmp_path / "b", "--precision", "fp16", "--no-verify").exit_code == 0
    assert "NOT VERIFIED: the bundle has no golden.npz" in compile_engines(tmp_path / "b")


def test_timing_cache_is_kept_and_replaced_if_it_does_not_fit(
    typed_copy: Path, compile_engines: CompileEngines, cache: Path
):
    file = cache / "tensorrt" / "Fake-Orin-sm8-7-trt10-3-0.timing"
    file.unlink(missing_ok=True)
    compile_engines(typed_copy)
    assert file.read_bytes() == b"timed;" * 4  # each of the four plans appends to it
    compile_engines(typed_copy, precision="fp32")
    assert file.read_bytes() == b"timed;" * 8
    file.write_bytes(b"of another GPU")
    warnings = [line for line in compile_engines(typed_copy, precision="int8") if line.startswith("warning")]
    assert warnings == [f"warning: {file} is not a timing cache of this GPU and TensorRT; starting a new one"]
    assert file.read_bytes() == b"timed;" * 4


def test_export_names_the_engines_that_it_would_remove(built_copy: Path, cli: Cli):
    result = cli("export", "-o", built_copy, "--force", "--dry-run")
    assert (
        result.exit_code == 0
        and "with 3 engines in it, which must be built again: fp16-sm87" in result.stderr
    )


def test_doctor_separates_broken_engines_from_those_of_other_machines(built_copy: Path, run: Process):
    (next(built_copy.glob("engines/int8-*")) / "engine.json").write_text("{")
    output = run("doctor", built_copy, LD_LIBRARY_PATH="").stdout
    assert "✗ engine: int8-sm87" in output and "its engine.json cannot be used" in output
    assert "✓ engines: for other machines: fp16-sm87" in output
    assert "✓ GPU: no NVIDIA driver on this machine" in output


def test_build_imports_neither_torch_nor_onnx(typed_copy: Path, record: ModuleType):
    code = (
        "import sys, bcm_edge.export.engines.build, bcm_edge.export.engines.compiler; "
        "print(*{name.split('.')[0] for name in sys.modules})"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"torch", "onnx", "onnxruntime", "click"} & set(loaded)
