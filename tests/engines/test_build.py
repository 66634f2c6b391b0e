"""bcm-edge build, from a bundle to engines, with a driver, a cuda-core and a TensorRT that stand in for real ones."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from types import ModuleType

import click
import pytest

from bcm_edge.commands.build import parse_bytes, parse_profile
from bcm_edge.errors import BackendError, BuildError, DowngradeError, InputError, ParityError
from bcm_edge.runtime.bundle import open_bundle
from bcm_edge.runtime.engines.gpu import parse_device

Build = Callable[..., "CompletedProcess[str]"]


@pytest.fixture
def run(process: Callable[..., CompletedProcess[str]], surroundings: dict[str, str]) -> Build:
    """`python cli.py …` where driver and stand-ins are found; keywords are more of the environment."""
    return lambda *arguments, **more: process(*arguments, **{**surroundings, **more})


def folder_of(bundle: Path) -> Path:
    """The one folder of engines in a bundle."""
    (folder,) = (bundle / "engines").iterdir()
    return folder


def test_a_build_publishes_plans_with_what_they_are(typed_copy: Path, run: Build):
    ended = run("build", typed_copy, "--batch", "1:2:8", "--workspace", "512M", "--opt-level", "2", "--json")
    assert ended.returncode == 0, ended.stderr
    folder = folder_of(typed_copy)
    assert sorted(file.name for file in folder.iterdir()) == [
        "add_noise.plan",
        "engine.json",
        "forward.plan",
        "inverse.plan",
        "to_uint8.plan",
    ]
    facts = json.loads((folder / "engine.json").read_text())
    assert folder.name.startswith("fp16-sm87-trt10.3.0-")
    assert (facts["tensorrt"], facts["gpu"], facts["capability"], facts["system"]) == ("10.3.0", "Fake Orin", "8.7", "Linux x86_64")
    assert facts["multiprocessors"] == 16
    assert facts["options"] == {"precision": "fp16", "batch": [1, 2, 8], "workspace": 512 << 20, "opt_level": 2, "stripped": False}
    assert facts["graphs"] == open_bundle(typed_copy).hashes("fp16")
    assert facts["types"] == {"forward": {"fp16": 27}, "inverse": {"fp16": 27}}
    assert facts["scratch"] == 4096
    said = json.loads(ended.stdout)
    assert said["built"] is True and said["engine"] == facts
    assert {move["batch"] for move in said["verification"]} == {1, 2, 8} and all(move["ok"] for move in said["verification"])


def test_the_forms_of_a_plan_are_bare(typed_copy: Path, run: Build):
    run("build", typed_copy)
    plan = json.loads((folder_of(typed_copy) / "forward.plan").read_text())  # nothing of ours before or after what TensorRT serialised
    assert plan["graph"].endswith("forward.fp16.onnx")
    assert plan["shapes"]["x"] == [[1, 1, 8, 8], [4, 1, 8, 8], [16, 1, 8, 8]] and plan["shapes"]["label"] == [[1], [4], [16]]


def test_progress_and_outcome_are_told(typed_copy: Path, run: Build):
    lines = run("build", typed_copy).stderr.splitlines()
    assert lines[0] == "fp16 for Fake Orin (compute capability 8.7, 8.0 GB, driver for CUDA 12.6), TensorRT 10.3.0"
    phases = [line.rpartition(" (")[0] for line in lines if "Building" in line]
    assert phases == ["forward: Building", "inverse: Building", "add_noise: Building", "to_uint8: Building"]
    assert any(line.startswith("fp16 on tensorrt against torch: ") and ": ok (48 moves in" in line for line in lines)
    assert "forward: convolutions asked for in fp16 27, found in fp16 27" in lines


def test_a_dla_report_counts_and_builds_nothing(typed_copy: Path, run: Build):
    run("build", typed_copy)
    ended = run("build", typed_copy, "--dla", "report")  # an engine that is there already does not keep it from answering
    assert (
        ended.stdout
        == "forward: a DLA could take 27 of 321 layers; not other 294\ninverse: a DLA could take 27 of 322 layers; not other 295\n"
    )
    told = json.loads(run("build", typed_copy, "--precision", "fp32", "--dla", "report", "--json").stdout)
    assert told["dla"]["forward"]["able"] == 27
    assert folder_of(typed_copy).name.startswith("fp16-")
    without = run("build", typed_copy, "--dla", "report", FAKE_DLA_CORES="0")
    assert without.returncode == 2 and without.stderr == "error: this GPU has no DLA that TensorRT knows of\n"


def test_a_second_build_finds_it_up_to_date_and_force_builds_again(typed_copy: Path, run: Build):
    run("build", typed_copy)
    built = json.loads((folder_of(typed_copy) / "engine.json").read_text())
    again = run("build", typed_copy, "--json")
    assert again.returncode == 0 and "up to date: fp16-sm87" in again.stderr and json.loads(again.stdout)["built"] is False
    assert json.loads((folder_of(typed_copy) / "engine.json").read_text()) == built
    assert json.loads(run("build", typed_copy, "--force", "--json").stdout)["built"] is True


def test_the_verdict_is_bound_to_the_plans(typed_copy: Path, run: Build):
    run("build", typed_copy)
    (verdict,) = [v for v in open_bundle(typed_copy).verdicts() if v.backend == "tensorrt"]
    assert verdict.ok and verdict.batches == [1, 4, 16]
    assert f"engines/{folder_of(typed_copy).name}/forward.plan" in verdict.files
    (folder_of(typed_copy) / "forward.plan").write_bytes(b"another")
    assert not [v for v in open_bundle(typed_copy).verdicts() if v.backend == "tensorrt"]


def test_an_engine_of_another_tensorrt_is_named_rebuilt_and_removed(typed_copy: Path, run: Build):
    run("build", typed_copy)
    old = folder_of(typed_copy).name
    ended = run("build", typed_copy, FAKE_TENSORRT="10.16.1")
    reason = "built by TensorRT 10.3.0, here is 10.16.1"
    assert f"stale: {old}: {reason}; built anew from the bundle's graphs\n" in ended.stderr
    assert f"removed: {old} ({reason})\n" in ended.stderr
    assert folder_of(typed_copy).name.startswith("fp16-sm87-trt10.16.1-")


def test_an_engine_of_another_gpu_is_named_and_left_for_its_owner(typed_copy: Path, run: Build):
    run("build", typed_copy)
    old = folder_of(typed_copy).name
    ended = run("build", typed_copy, FAKE_CAPABILITY="110")
    assert f"stale: {old}: built for compute capability 8.7 (Fake Orin), this GPU (Fake Orin) has 11.0; left as it is\n" in ended.stderr
    assert sorted(folder.name for folder in (typed_copy / "engines").iterdir())[0].startswith("fp16-sm110-")
    assert (typed_copy / "engines" / old).is_dir()


def test_a_damaged_engine_is_named_and_rebuilt_in_its_place(typed_copy: Path, run: Build):
    run("build", typed_copy)
    plan = folder_of(typed_copy) / "inverse.plan"
    whole = plan.read_bytes()
    plan.write_bytes(whole[:-1] + b" ")
    ended = run("build", typed_copy)
    assert ended.returncode == 0 and "inverse.plan: not the file that was built" in ended.stderr
    assert plan.read_bytes() == whole


def test_only_engines_of_the_precision_are_spoken_of(typed_copy: Path, run: Build):
    run("build", typed_copy, "--precision", "fp32")
    ended = run("build", typed_copy, FAKE_TENSORRT="10.16.1")
    assert "stale" not in ended.stderr
    assert len(list((typed_copy / "engines").iterdir())) == 2


def test_an_engine_of_the_same_board_with_more_multiprocessors_is_another(typed_copy: Path, run: Build):
    run("build", typed_copy)
    reason = "built on Fake Orin with 16 multiprocessors, this is Fake Orin with 8 multiprocessors"
    assert f"{reason}; left as it is" in run("build", typed_copy, FAKE_MULTIPROCESSORS="8").stderr


def test_engines_stay_when_8_bits_join_the_bundle(tmp_path: Path, cli, run: Build):
    bundle = tmp_path / "digits.bundle"
    assert cli("export", "-o", bundle, "--precision", "fp32,fp16").exit_code == 0
    run("build", bundle)
    plan = (folder_of(bundle) / "forward.plan").read_bytes()
    assert cli("calibrate", bundle, "--data", "digits").exit_code == 0
    assert (folder_of(bundle) / "forward.plan").read_bytes() == plan
    assert "up to date" in run("build", bundle).stderr


def test_engines_that_are_a_link_are_not_followed(typed_copy: Path, run: Build, tmp_path: Path):
    (tmp_path / "elsewhere").mkdir()
    (typed_copy / "engines").symlink_to(tmp_path / "elsewhere")
    ended = run("build", typed_copy)
    assert ended.returncode == 2 and "engines is a link; engines are kept in the bundle itself" in ended.stderr
    assert not list((tmp_path / "elsewhere").iterdir())


def test_a_small_profile_is_verified_within_it(typed_copy: Path, run: Build):
    run("build", typed_copy, "--batch", "1:1:4")
    verified = run("verify", typed_copy, "--backend", "tensorrt", "--precision", "fp16", "--json")
    assert verified.returncode == 0 and json.loads(verified.stdout)["precisions"][0]["batches"] == [1, 2, 4]


def test_generate_says_why_an_engine_is_not_played(built_copy: Path, run: Build, tmp_path: Path):
    ended = run("generate", built_copy, "--label", "3", "-o", tmp_path / "a.png", FAKE_TENSORRT="10.16.1")
    assert "note: playing on onnxruntime, since " in ended.stderr and "built by TensorRT 10.3.0, here is 10.16.1" in ended.stderr
    assert "note" not in run("generate", built_copy, "--label", "3", "-o", tmp_path / "b.png", LD_LIBRARY_PATH="").stderr


def test_an_engine_that_came_along_is_played_only_by_name(built_copy: Path, run: Build, tmp_path: Path):
    elsewhere = {"BCM_EDGE_CACHE_DIR": str(tmp_path / "cache")}  # of a machine that has built nothing
    ended = run("generate", built_copy, "--label", "3", "-o", tmp_path / "a.png", **elsewhere)
    assert "not built here; --backend tensorrt plays it all the same" in ended.stderr and "fp32 on onnxruntime" in ended.stderr
    ended = run("generate", built_copy, "--label", "3", "-o", tmp_path / "b.png", "--backend", "tensorrt", **elsewhere)
    assert ended.returncode == 0 and "fp16 on tensorrt" in ended.stderr


def test_verify_bench_and_inspect_know_engines(built_copy: Path, run: Build):
    verified = run("verify", built_copy, "--backend", "tensorrt", "--precision", "fp16")
    assert verified.returncode == 0 and "one CUDA graph per schedule" in verified.stdout
    shown = run("inspect", built_copy).stdout
    assert "engines: 3\n" in shown and "fp16, batch 1:4:16, TensorRT 10.3.0, Fake Orin" in shown
    assert "fp16 on tensorrt against torch" in shown
    told = run("inspect", built_copy, "--json")
    assert len(json.loads(told.stdout)["engines"]) == 3
    timed = run("bench", built_copy, "--backend", "tensorrt", "--precision", "fp16", "--batch", "2", "--seconds", "0.2", "--json")
    assert timed.returncode == 0 and json.loads(timed.stdout)["results"][0]["backend"] == "tensorrt"


def test_doctor_says_whether_an_engine_fits(built_copy: Path, run: Build):
    fits = run("doctor", built_copy).stdout
    assert fits.count("fits here") == 3 and "✓ GPU: Fake Orin (compute capability 8.7" in fits
    other = run("doctor", built_copy, FAKE_TENSORRT="10.16.1").stdout
    assert "does not run here: built by TensorRT 10.3.0, here is 10.16.1\n    fix: bcm-edge build" in other


# What goes wrong


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"LD_LIBRARY_PATH": ""}, "no NVIDIA driver here (libcuda.so.1 cannot be loaded)"),
        ({"FAKE_INIT": "100"}, "no NVIDIA GPU can be used here: the driver says CUDA_ERROR_NO_DEVICE"),
        ({"FAKE_GPUS": "0"}, "no GPU cuda:0 here; there is none"),
        ({"PYTHONPATH": ""}, "tensorrt is not installed; pip install 'bcm-edge[trt10]'"),
        ({"FAKE_TENSORRT": "8.5.2"}, "TensorRT 8.5.2 is too old; this needs 8.6 (JetPack 6.0) or newer"),
    ],
)
def test_without_a_gpu_one_line_says_what_is_needed_and_what_still_works(
    typed_copy: Path, run: Build, environment: dict[str, str], message: str
):
    ended = run("build", typed_copy, **environment)
    assert ended.returncode == 2 and ended.stdout == ""
    needs = "build needs an NVIDIA GPU with its driver, TensorRT 8.6 or newer, and cuda-core"
    works = "Run it on the machine that will play the engines. Here this bundle plays with --backend onnxruntime or openvino"
    assert ended.stderr == f"error: {needs}: {message}. {works}\n"


@pytest.mark.parametrize(
    ("fault", "error", "message"),
    [
        (
            "memory",
            BuildError,
            r"ran out of memory: 6.0 GB of 8.0 were free when it began\. Try --workspace 1024M, --opt-level 1 or a smaller --batch",
        ),
        ("killed", BuildError, r"ran out of memory: 6.0 GB of 8.0 were free when it began\. Try --workspace 1024M"),
        ("driver", BackendError, r"TensorRT 10\.3\.0 cannot start on this GPU and driver: CUDA initialization failure with error: 35"),
        ("refused", BuildError, r"forward: TensorRT 10\.3\.0 cannot build it: Internal Error: no such kernel"),
        ("wider", DowngradeError, "forward: 27 of 27 convolutions compute in more bits than fp16 asks for, input_blocks.0.0/Conv first"),
    ],
)
def test_a_failed_build_leaves_the_bundle_as_it_was(
    typed_copy: Path, compile_engines, monkeypatch: pytest.MonkeyPatch, fault: str, error: type[Exception], message: str
):
    manifest = (typed_copy / "manifest.json").read_text()
    monkeypatch.setenv("FAKE_BUILD", fault)
    with pytest.raises(error, match=message):
        compile_engines(typed_copy)
    assert not list((typed_copy / "engines").iterdir())
    assert (typed_copy / "manifest.json").read_text() == manifest


def test_on_a_jetson_the_desktop_and_swap_are_named(typed_copy: Path, compile_engines, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FAKE_BUILD", "killed")
    monkeypatch.setenv("FAKE_INTEGRATED", "1")
    with pytest.raises(BuildError, match="on a Jetson close the desktop and add swap"):
        compile_engines(typed_copy)


def test_int8_may_leave_some_convolutions_wider_but_not_most(typed_copy: Path, compile_engines, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FAKE_BUILD", "wider")
    with pytest.raises(DowngradeError, match="convolutions compute in more bits than int8 asks for"):
        compile_engines(typed_copy, precision="int8")


def test_engines_that_stray_are_not_kept(typed_copy: Path, compile_engines, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("bcm_edge.export.engines.build.BOUNDS", {"fp16": 1e-6})
    with pytest.raises(ParityError, match=r"the engine strays from torch; worst is .* bound 1e-06\. No engine was kept\."):
        compile_engines(typed_copy)
    assert not list((typed_copy / "engines").iterdir())


def test_a_process_that_crashes_is_told_by_its_last_words(typed_copy: Path, compile_engines, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(
        "bcm_edge.export.engines.build.CHILD", "import os, sys\nprint('half a word', file=sys.stderr, flush=True)\nos.abort()\n"
    )
    with pytest.raises(BuildError, match="the compiling process ended with signal SIGABRT: half a word"):
        compile_engines(typed_copy)


def test_a_bundle_without_a_recording_is_built_and_said_to_be_unverified(tmp_path: Path, cli, compile_engines):
    assert cli("export", "-o", tmp_path / "b", "--precision", "fp16", "--no-verify").exit_code == 0
    assert "NOT VERIFIED: the bundle has no golden.npz" in compile_engines(tmp_path / "b")


def test_a_timing_cache_is_kept_and_a_foreign_one_begun_anew_with_one_warning(typed_copy: Path, compile_engines, cache: Path):
    shutil.rmtree(cache / "tensorrt", ignore_errors=True)
    compile_engines(typed_copy)
    file = cache / "tensorrt" / "Fake-Orin-sm8-7-trt10-3-0.timing"
    assert file.read_bytes() == b"timed;" * 4  # four plans, each adding to what the one before left
    compile_engines(typed_copy, precision="fp32")
    assert file.read_bytes() == b"timed;" * 8
    file.write_bytes(b"of another GPU")
    warnings = [line for line in compile_engines(typed_copy, precision="int8") if line.startswith("warning")]
    assert warnings == [f"warning: {file} is not a timing cache of this GPU and TensorRT; beginning a new one"]
    assert file.read_bytes() == b"timed;" * 4


def test_a_dry_run_builds_nothing(typed_copy: Path, run: Build):
    ended = run("build", typed_copy, "--dry-run")
    assert ended.returncode == 0 and ended.stdout.startswith(f"would write {typed_copy}/engines/fp16-sm87-trt10.3.0-")
    assert "  batch: 1:4:16, verified at 1, 4, 16\n" in ended.stdout
    assert not (typed_copy / "engines").exists()
    assert json.loads(run("build", typed_copy, "--dry-run", "--json").stdout)["to_verify"] == [1, 4, 16]


def test_without_a_precision_fp16_is_built_or_else_the_most_exact(bundle_copy: Path, typed_copy: Path, run: Build):
    assert "would write" in run("build", bundle_copy, "--dry-run").stdout and "/fp32-sm87" in run("build", bundle_copy, "--dry-run").stdout
    assert "/fp16-sm87" in run("build", typed_copy, "--dry-run").stdout


def test_engines_that_an_export_would_lose_are_named(built_copy: Path, cli):
    ended = cli("export", "-o", built_copy, "--force", "--dry-run")
    assert ended.exit_code == 0 and "with 3 engines in it, which will have to be built again: fp16-sm87" in ended.stderr


def test_doctor_on_another_machine_tells_broken_engines_from_foreign_ones(built_copy: Path, run: Build):
    (next(built_copy.glob("engines/int8-*")) / "engine.json").write_text("{")
    shown = run("doctor", built_copy, LD_LIBRARY_PATH="").stdout
    assert "✗ engine: int8-sm87" in shown and "its engine.json cannot be used" in shown
    assert "✓ engines: for other machines: fp16-sm87" in shown
    assert "✓ GPU: none: no NVIDIA driver here" in shown


def test_a_precision_that_the_bundle_lacks_is_refused_before_the_gpu_is_asked(bundle_copy: Path, cli):
    ended = cli("build", bundle_copy, "--precision", "fp16")
    assert ended.exit_code == 2 and "has no fp16 graphs (it has fp32); export with --precision fp32,fp16" in ended.stderr


def test_profiles_amounts_and_devices_are_read():
    assert [parse_profile(text) for text in ("1:4:16", "8", "2:2:2")] == [(1, 4, 16), (8, 8, 8), (2, 2, 2)]
    assert [parse_bytes(text) for text in ("2G", "512M", "2048k", "1073741824", "1GiB")] == [2 << 30, 512 << 20, 2 << 20, 1 << 30, 1 << 30]
    assert [parse_device(text) for text in ("cuda", "cuda:0", "cuda:3")] == [0, 0, 3]


@pytest.mark.parametrize("text", ["", "0:1:2", "4:2:8", "1:2", "1:2:3:4", "a", "1.5", "-1", "1:4:999999"])
def test_profiles_that_are_none(text: str):
    with pytest.raises(click.BadParameter, match="is no MIN:OPT:MAX"):
        parse_profile(text)


@pytest.mark.parametrize("text", ["", "0", "2", "1023K", "2T", "99999999G", "-1G", "1.5G", "G", "nan"])
def test_amounts_that_are_none(text: str):
    with pytest.raises(click.BadParameter, match="is no whole amount of memory from 1M on"):
        parse_bytes(text)


@pytest.mark.parametrize("text", ["", "cpu", "cuda:", "cuda:-1", "cuda:x", "gpu:0", "0"])
def test_devices_that_are_none(text: str):
    with pytest.raises(InputError, match="is no device; engines are built for cuda:0, cuda:1, …"):
        parse_device(text)


def test_another_gpu_can_be_named(typed_copy: Path, run: Build):
    assert run("build", typed_copy, "--device", "cuda:1", FAKE_GPUS="2").returncode == 0
    ended = run("build", typed_copy, "--device", "cuda:2", FAKE_GPUS="2")
    assert "no GPU cuda:2 here; there is cuda:0, cuda:1." in ended.stderr


def test_building_takes_neither_torch_nor_onnx(typed_copy: Path, record: ModuleType):
    import subprocess
    import sys

    code = "import sys, bcm_edge.export.engines.build, bcm_edge.export.engines.compiler; print(*{m.split('.')[0] for m in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "onnx", "onnxruntime", "click"} & set(loaded)
