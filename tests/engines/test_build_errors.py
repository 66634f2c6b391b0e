"""bcm-edge build where it cannot: no GPU, too little memory, a crash, types or images that are not what was asked for, bad values."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from subprocess import CompletedProcess
from types import ModuleType

import click
import pytest

from bcm_edge.commands.build import parse_bytes, parse_profile
from bcm_edge.errors import BackendError, BuildError, InputError, ParityError
from bcm_edge.runtime.engines.store import workspace_limit
from bcm_edge.runtime.machine.gpu import parse_device, probe

Build = Callable[..., "CompletedProcess[str]"]
FAKES = Path(__file__).parent / "fakes"
ROOT = Path(__file__).parents[2]


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
def test_without_a_gpu_one_line_says_what_is_needed_and_what_still_works(
    typed_copy: Path, run: Build, environment: dict[str, str], message: str
):
    ended = run("build", typed_copy, cwd=ROOT, **environment)
    assert ended.returncode == 2 and ended.stdout == ""
    needs = "build needs an NVIDIA GPU with its driver, TensorRT 8.6 or newer, and cuda-core"
    works = "Run it on the machine that will play the engines. Here this bundle plays with --backend onnxruntime or openvino"
    assert ended.stderr == f"error: {needs}: {message}. {works}\n"


def test_versions_of_cuda_core_and_cuda_bindings_that_do_not_work_together_are_named(
    typed_copy: Path, run: Build, tmp_path: Path
):
    """As cuda-core 1.2.2 fails with cuda-bindings 12.8.0."""
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
    ended = run("build", typed_copy, PYTHONPATH=f"{tmp_path}:{FAKES}", cwd=ROOT)
    fix = "pip install --upgrade '.[trt10]'. Run it on the machine"
    reason = "cuda-core 1.2.2 and cuda-bindings 12.8.0 do not work together (No module named 'cuda.bindings.cynvvm')"
    assert ended.returncode == 2
    assert f"{reason}; {fix}" in ended.stderr
    (tmp_path / "cuda_core-1.2.2.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: cuda-core\nVersion: 0.5.1\n"
    )
    ended = run("build", typed_copy, PYTHONPATH=f"{tmp_path}:{FAKES}", cwd=ROOT)
    assert f"cuda-core 0.5.1 is too old, 1.2 or newer is needed; {fix}" in ended.stderr


@pytest.mark.parametrize(
    ("fault", "error", "message"),
    [
        (
            "memory",
            BuildError,
            r"ran out of memory: 6.0 GB of 8.0 were free when it began\. Close other programs that use the GPU, or try --opt-level 1",
        ),
        (
            "killed",
            BuildError,
            r"ran out of memory: 6.0 GB of 8.0 were free when it began\. Close other programs that use the GPU",
        ),
        (
            "driver",
            BackendError,
            r"TensorRT 10\.3\.0 cannot start on this GPU and driver: CUDA initialization failure with error: 35",
        ),
        (
            "refused",
            BuildError,
            r"forward: TensorRT 10\.3\.0 cannot build it: Internal Error: no such kernel",
        ),
    ],
)
def test_a_failed_build_leaves_the_bundle_as_it_was(
    typed_copy: Path,
    compile_engines,
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


def test_on_a_jetson_the_desktop_and_swap_are_named(
    typed_copy: Path, compile_engines, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("FAKE_BUILD", "killed")
    monkeypatch.setenv("FAKE_INTEGRATED", "1")
    monkeypatch.setattr("bcm_edge.export.engines.child.workspace_limit", lambda *_: 2 << 30)
    smaller = "The workspace was 2048M: try --workspace 1024M, --opt-level 1 or a smaller --batch"
    with pytest.raises(BuildError, match=f"{smaller}; on a Jetson close the desktop and add swap"):
        compile_engines(typed_copy)


def test_convolutions_in_more_bits_are_named_in_a_warning(
    typed_copy: Path, compile_engines, monkeypatch: pytest.MonkeyPatch
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


def test_a_warning_names_the_first_of_many(
    typed_copy: Path, compile_engines, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("FAKE_BUILD", "wider")
    warnings = [line for line in compile_engines(typed_copy) if line.startswith("warning")]
    assert warnings[0].startswith(
        "warning: forward: 27 of 27 convolutions compute in more bits than fp16 asks for: input_blocks.0.0/Conv"
    )
    assert warnings[0].endswith(" in fp32 and 22 more (engine.json lists them)")


def test_strict_types_refuse_an_engine_with_a_convolution_in_more_bits(typed_copy: Path, run: Build):
    refusal = "error: forward: 1 of 27 convolutions compute in more bits than fp16 asks for: input_blocks.0.0/Conv in fp32"
    ended = run("build", typed_copy, "--strict-types", FAKE_BUILD="one wider")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert refusal in ended.stderr and not list((typed_copy / "engines").iterdir())
    assert run("build", typed_copy, FAKE_BUILD="one wider").returncode == 0
    ended = run("build", typed_copy, "--strict-types")  # the engine that was kept without it
    assert ended.returncode == 1 and refusal in ended.stderr
    assert run("build", typed_copy, "--strict-types", "--force").returncode == 0
    assert "up to date" in run("build", typed_copy, "--strict-types").stderr


def test_an_engine_with_other_images_is_refused_whatever_its_types(
    typed_copy: Path, compile_engines, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("FAKE_BUILD", "one wider")
    monkeypatch.setattr("bcm_edge.export.engines.build.BOUNDS", {"fp16": 1e-6})
    with pytest.raises(ParityError):
        compile_engines(typed_copy)
    assert not list((typed_copy / "engines").iterdir())


@pytest.mark.parametrize(
    ("integrated", "chosen", "limit"),
    [
        (False, None, None),  # TensorRT's own
        (True, None, 3_000_000_000),  # half of what is free
        (False, 512 << 20, 512 << 20),
        (True, 512 << 20, 512 << 20),
    ],
)
def test_workspace_limit(record: ModuleType, integrated: bool, chosen: int | None, limit: int | None):
    gpu = replace(probe(), integrated=integrated)
    assert workspace_limit(chosen, gpu, 6_000_000_000) == limit
    if integrated and chosen is None:
        assert (
            workspace_limit(chosen, gpu, None) == 4_000_000_000
        )  # half of all memory where nothing tells what is free


@pytest.mark.parametrize(("integrated", "limited"), [("0", []), ("1", ["WORKSPACE"])])
def test_workspace_is_limited_where_the_gpu_shares_the_memory_of_the_processor(
    typed_copy: Path, compile_engines, monkeypatch: pytest.MonkeyPatch, integrated: str, limited: list[str]
):
    monkeypatch.setenv("FAKE_INTEGRATED", integrated)
    compile_engines(typed_copy)
    (folder,) = (typed_copy / "engines").iterdir()
    assert list(json.loads((folder / "forward.plan").read_text())["limits"]) == limited


def test_no_kernel_within_a_small_workspace_asks_for_a_larger_one(
    typed_copy: Path, compile_engines, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("FAKE_BUILD", "memory")
    with pytest.raises(
        BuildError,
        match="No kernel fits into the workspace of 64M: try a larger --workspace or a smaller --batch",
    ):
        compile_engines(typed_copy, workspace=64 << 20)


def test_engines_that_stray_are_not_kept(typed_copy: Path, compile_engines, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("bcm_edge.export.engines.build.BOUNDS", {"fp16": 1e-6})
    with pytest.raises(
        ParityError,
        match=r"the engine differs from torch by more than the bound of 1e-06\. The worst is .*No engine was kept\.",
    ):
        compile_engines(typed_copy)
    assert not list((typed_copy / "engines").iterdir())


def test_a_process_that_crashes_is_told_by_its_last_words(
    typed_copy: Path, compile_engines, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(
        "bcm_edge.export.engines.child.CHILD",
        "import os, sys\nprint('half a word', file=sys.stderr, flush=True)\nos.abort()\n",
    )
    with pytest.raises(BuildError, match="the compiling process ended with signal SIGABRT: half a word"):
        compile_engines(typed_copy)


def test_a_bundle_without_a_recording_is_built_and_said_to_be_unverified(
    tmp_path: Path, cli, compile_engines
):
    assert cli("export", "-o", tmp_path / "b", "--precision", "fp16", "--no-verify").exit_code == 0
    assert "NOT VERIFIED: the bundle has no golden.npz" in compile_engines(tmp_path / "b")


def test_a_timing_cache_is_kept_and_a_foreign_one_begun_anew_with_one_warning(
    typed_copy: Path, compile_engines, cache: Path
):
    shutil.rmtree(cache / "tensorrt", ignore_errors=True)
    compile_engines(typed_copy)
    file = cache / "tensorrt" / "Fake-Orin-sm8-7-trt10-3-0.timing"
    assert file.read_bytes() == b"timed;" * 4  # four plans, each adding to what the one before left
    compile_engines(typed_copy, precision="fp32")
    assert file.read_bytes() == b"timed;" * 8
    file.write_bytes(b"of another GPU")
    warnings = [line for line in compile_engines(typed_copy, precision="int8") if line.startswith("warning")]
    assert warnings == [f"warning: {file} is not a timing cache of this GPU and TensorRT; starting a new one"]
    assert file.read_bytes() == b"timed;" * 4


def test_a_dry_run_builds_nothing(typed_copy: Path, run: Build):
    ended = run("build", typed_copy, "--dry-run")
    assert ended.returncode == 0 and ended.stdout.startswith(
        f"would write {typed_copy}/engines/fp16-sm87-trt10.3.0-"
    )
    assert "  batch: 1:4:16, verified at 1, 4, 16\n" in ended.stdout
    assert not (typed_copy / "engines").exists()
    assert json.loads(run("build", typed_copy, "--dry-run", "--json").stdout)["to_verify"] == [1, 4, 16]


def test_without_a_precision_fp16_is_built_or_else_the_most_exact(
    bundle_copy: Path, typed_copy: Path, run: Build
):
    assert (
        "would write" in run("build", bundle_copy, "--dry-run").stdout
        and "/fp32-sm87" in run("build", bundle_copy, "--dry-run").stdout
    )
    assert "/fp16-sm87" in run("build", typed_copy, "--dry-run").stdout


def test_engines_that_an_export_would_lose_are_named(built_copy: Path, cli):
    ended = cli("export", "-o", built_copy, "--force", "--dry-run")
    assert (
        ended.exit_code == 0
        and "with 3 engines in it, which will have to be built again: fp16-sm87" in ended.stderr
    )


def test_doctor_on_another_machine_tells_broken_engines_from_foreign_ones(built_copy: Path, run: Build):
    (next(built_copy.glob("engines/int8-*")) / "engine.json").write_text("{")
    shown = run("doctor", built_copy, LD_LIBRARY_PATH="").stdout
    assert "✗ engine: int8-sm87" in shown and "its engine.json cannot be used" in shown
    assert "✓ engines: for other machines: fp16-sm87" in shown
    assert "✓ GPU: none: no NVIDIA driver on this machine" in shown


def test_a_precision_that_the_bundle_lacks_is_refused_before_the_gpu_is_asked(bundle_copy: Path, cli):
    ended = cli("build", bundle_copy, "--precision", "fp16")
    assert (
        ended.exit_code == 2
        and "has no fp16 graphs (it has fp32); export with --precision fp32,fp16" in ended.stderr
    )


def test_profiles_amounts_and_devices_are_read():
    assert [parse_profile(text) for text in ("1:4:16", "8", "2:2:2")] == [(1, 4, 16), (8, 8, 8), (2, 2, 2)]
    assert [parse_bytes(text) for text in ("2G", "512M", "2048k", "1073741824", "1GiB")] == [
        2 << 30,
        512 << 20,
        2 << 20,
        1 << 30,
        1 << 30,
    ]
    assert [parse_device(text) for text in ("cuda", "cuda:0", "cuda:3")] == [0, 0, 3]


@pytest.mark.parametrize("text", ["", "0:1:2", "4:2:8", "1:2", "1:2:3:4", "a", "1.5", "-1", "1:4:999999"])
def test_profiles_that_are_none(text: str):
    with pytest.raises(click.BadParameter, match="expected MIN:OPT:MAX"):
        parse_profile(text)


@pytest.mark.parametrize("text", ["", "0", "2", "1023K", "2T", "99999999G", "-1G", "1.5G", "G", "nan"])
def test_amounts_that_are_none(text: str):
    with pytest.raises(click.BadParameter, match="expected a whole number of bytes of at least 1M"):
        parse_bytes(text)


@pytest.mark.parametrize("text", ["", "cpu", "cuda:", "cuda:-1", "cuda:x", "gpu:0", "0"])
def test_unknown_devices(text: str):
    with pytest.raises(InputError, match=f"unknown device '{text}'; engines are built for cuda:0, cuda:1, …"):
        parse_device(text)


def test_another_gpu_can_be_named(typed_copy: Path, run: Build):
    assert run("build", typed_copy, "--device", "cuda:1", FAKE_GPUS="2").returncode == 0
    ended = run("build", typed_copy, "--device", "cuda:2", FAKE_GPUS="2")
    assert "no GPU cuda:2 on this machine; available: cuda:0, cuda:1." in ended.stderr


def test_building_takes_neither_torch_nor_onnx(typed_copy: Path, record: ModuleType):
    import subprocess
    import sys

    code = "import sys, bcm_edge.export.engines.build, bcm_edge.export.engines.compiler; print(*{m.split('.')[0] for m in sys.modules})"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"torch", "onnx", "onnxruntime", "click"} & set(loaded)
